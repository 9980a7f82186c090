"""Times are read as people write them, or refused with what would be right."""

import pytest

from pcmc.errors import DataError
from pcmc.runtime.times import seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("20s", 20),
        ("20", 20),
        ("1.5 min", 90),
        ("1h", 3600),
        ("1d", 86_400),
        ("2w", 1_209_600),
        ("1e3s", 1000),
        ("2.5ms", 2.5e-3),
        ("40ns", 40e-9),
        (7, 7),
    ],
)
def test_a_time_is_a_number_with_a_unit(text, value):
    assert seconds(text) == value


def test_a_year_has_the_length_of_a_julian_one():
    assert seconds("1y") == 365.25 * seconds("1d")


@pytest.mark.parametrize(
    "text", ["", "h", "1 fortnight", "-1s", "1.2.3s", "nan", "1h30", float("nan"), float("inf"), -1]
)
def test_what_is_no_time_is_refused(text):
    with pytest.raises(DataError, match="should be a number with a unit of ns, us, ms, s, min, h, d, w, y"):
        seconds(text)
