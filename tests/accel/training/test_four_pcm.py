"""Two tiers of PCM in training: pulses on the low pair, and what a transfer makes of both."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from effects_measures import deviation
from trained_cells import RANGE, make, spread_weights

from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict, load_chip
from pcmc.accel.training.bank import PulseLaw
from pcmc.accel.training.bfloat16 import widened
from pcmc.accel.training.four_pcm import FourPcmCells
from pcmc.errors import ChipError

F = 3.0
LOW = RANGE / F
"""The weight that g_max of the low pair stands for."""
UNIT = F * 20.0 / RANGE


def chip(**sections: dict[str, Any]) -> ChipSpec:
    """pcm2014 with two pairs a weight."""
    tables = chip_to_dict(load_chip("pcm2014"))
    tables["cell"] |= {"kind": "4pcm", "significance": F}
    for name, fields in sections.items():
        tables[name] = tables[name] | fields
    return chip_from_dict(tables, "test")


def documented(folder, name: str) -> ChipSpec:
    """A chip of docs/training.md."""
    page = Path(__file__).parents[3] / "docs" / "training.md"
    for text in re.findall(r"```toml\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S):
        if f'name = "{name}"' in text:
            path = folder / "mine.toml"
            path.write_text(text)
            return load_chip(path)
    raise AssertionError(name)


def low_of(bank):
    """g+ - g- of all cells, in units of the weight."""
    return bank._low.differences(slice(None))


def test_without_errors_the_high_pair_holds_all_of_a_weight():
    weights = spread_weights(20, 10)
    bank = make(weights, "pulses", chip())
    assert type(bank) is FourPcmCells
    np.testing.assert_allclose(bank.read_out(), weights.ravel(), atol=1e-6)
    np.testing.assert_allclose((bank._g_plus - bank._g_minus) / UNIT * F, weights.ravel(), atol=1e-6)
    np.testing.assert_allclose(low_of(bank), 0, atol=1e-6)
    np.testing.assert_array_equal(bank.pair_only(), bank.read_out())


def test_the_low_pair_takes_the_error_of_the_high_one():
    weights = np.full((300, 100), 0.25, np.float32)
    bank = make(weights, "pulses,programming_error", chip())
    high = (bank._g_plus - bank._g_minus) * F / UNIT
    found = bank.read_out() - weights.ravel()
    assert np.std(high - 0.25) > 3 * np.std(found)
    # What is left is sigma_prog of a target of about 2 uS in the low pair, in weights of 1 / UNIT.
    assert 0.3 / UNIT < found.std() < 0.6 / UNIT
    assert bank.counters()["weight_error"] == pytest.approx(math.sqrt(np.mean(found**2)), rel=1e-4)
    assert bank.counters()["pcm_resets"] == 4 * 30_000


def test_a_pulse_changes_the_low_pair_and_the_weight_as_the_polarity_says():
    bank = make(np.zeros((5, 4), np.float32), "pulses", chip())
    law = bank.bank.law
    x, d = np.ones((1, 5), np.float32), -np.ones((1, 4), np.float32)
    high = bank._g_plus.copy()
    bank.bank.update(x, d, law.step)
    np.testing.assert_allclose(bank.read_out(), low_of(bank), rtol=1e-5)
    np.testing.assert_allclose(bank.read_out(), LOW * 0.005 * (1 + 27.235 * math.exp(-0.025)), rtol=0.01)
    bank.bank.sign = -1
    before = bank.read_out()
    bank.bank.update(x, d, law.step)
    assert (bank.read_out() > before).all()
    assert (law.minus > 0.05 * LOW).all()
    np.testing.assert_array_equal(bank._g_plus, high)


@pytest.mark.parametrize("inversion", [True, False])
def test_a_transfer_moves_what_the_low_pair_holds_to_the_high_one(inversion):
    bank = make(
        spread_weights(20, 10, 0.1),
        "pulses,pulse_noise,step_mismatch",
        chip(training={"inversion": inversion}),
    )
    for _ in range(4):
        bank.bank.update(np.ones((1, 20), np.float32), -np.ones((1, 10), np.float32), bank.bank.law.step)
    w, low = bank.read_out(), low_of(bank)
    assert low.min() > 0.03 * LOW
    bank.transfer(8000)
    np.testing.assert_allclose(bank.read_out(), w, atol=1e-6)
    np.testing.assert_allclose((bank._g_plus - bank._g_minus) / UNIT * F, w, atol=1e-6)
    assert np.abs(low_of(bank)).max() < 1e-6
    assert bank.bank.sign == (-1 if inversion else 1)
    counts = bank.counters()
    assert (counts["transfers"], counts["checks"], counts["out_of_reach"]) == (1, 0, 0)


def test_between_transfers_low_pairs_that_are_near_their_end_are_written_anew():
    bank = make(np.zeros((1, 3), np.float32), "pulses", chip())
    assert bank.transfer_every == 100
    bank._low.held["plus"][:] = np.float32(LOW) * np.array([0.9, 0.9, 0.5], np.float32)
    bank._low.held["minus"][:] = np.float32(LOW) * np.array([0.5, 0.1, 0.5], np.float32)
    bank.bank.weights[:] = low_of(bank)
    high, w = bank._g_plus.copy(), bank.read_out()
    bank.transfer(100)
    np.testing.assert_allclose(bank._low.held["plus"] / LOW, [0.405, 0.9, 0.5], rtol=1e-3)
    np.testing.assert_allclose(bank.read_out(), w, atol=1e-6)
    np.testing.assert_array_equal(bank._g_plus, high)
    counts = bank.counters()
    assert (counts["transfers"], counts["checks"], counts["rewritten"]) == (0, 1, 1)
    for example in range(200, 16_100, 100):
        bank.transfer(example)
    counts = bank.counters()
    assert (counts["transfers"], counts["checks"]) == (2, 158)


def test_what_the_low_pair_cannot_reach_stays_and_is_counted():
    bank = make(
        np.full((100, 100), 0.5, np.float32), "pulses,programming_error", chip(cell={"g_max_us": 4.0})
    )
    missed = np.abs(bank.read_out() - 0.5) > 0.03
    assert 0 < bank.counters()["out_of_reach"] <= missed.sum() + 100


def test_without_pulses_the_low_pair_takes_changes_exactly_and_is_transferred():
    bank = make(np.zeros((3, 4), np.float32), "step_mismatch", chip(training={"transfer_every": 500}))
    assert isinstance(bank.bank.law, PulseLaw)
    assert bank.transfer_every == 500
    bank.bank.update(np.ones((1, 3), np.float32), -np.ones((1, 4), np.float32), 0.0123)
    before = bank.read_out()
    bank.transfer(500)
    np.testing.assert_allclose(bank.read_out(), before, atol=1e-6)
    np.testing.assert_allclose(bank.bank.law.low, low_of(bank), atol=1e-7)
    assert np.abs(bank.bank.law.low).max() < 1e-5
    assert bank.counters()["transfers"] == 1


def test_reads_of_both_pairs_have_noise():
    bank = make(spread_weights(60, 50), "pulses,read_noise=fast", chip())
    y = np.stack([bank.bank.forward(np.ones((1, 60), np.float32))[0] for _ in range(200)])
    wanted = np.sqrt(widened(bank.bank.variances).reshape(60, 50).sum(axis=0))
    found = deviation("noise", (y - y.mean(axis=0)) / wanted)
    assert found.deviation < found.allowed + 0.01


def test_transfers_come_at_multiples_of_the_checks():
    with pytest.raises(
        ChipError, match=r"transfer_every = 250: must be a multiple of \[pulses\] reset_every = 100"
    ):
        make(spread_weights(5, 4), "full", chip(training={"transfer_every": 250}))
    assert make(spread_weights(5, 4), "full", chip(training={"transfer_every": 0})).transfer_every == 100


def test_cells_that_are_not_trained_are_programmed_once():
    bank = make(spread_weights(5, 4), "full", chip(), trainable=False)
    assert (bank.transfer_every, bank.bank.law) == (0, None)
    assert np.abs(bank.read_out() - spread_weights(5, 4).ravel()).max() < 0.03


@pytest.mark.parametrize("kind", ["full", "full,read_noise=fast", "programming_error"])
def test_a_bank_goes_on_from_its_arrays_to_the_bit(kind):
    of = chip(training={"transfer_every": 200})

    def go_on(bank, example):
        x, d = np.ones((30, 5), np.float32), np.tile(np.eye(3, 4, dtype=np.float32), (10, 1))
        bank.bank.update(x, d, 0.02)
        bank.transfer(example)
        return bank.arrays()

    weights = spread_weights(5, 4)
    first = make(weights, kind, of)
    go_on(first, 100)
    go_on(first, 200)
    second = make(weights * 0, kind, of)
    second.restore(first.arrays())
    for example in (300, 400):
        wanted, found = go_on(first, example), go_on(second, example)
        assert wanted.keys() == found.keys()
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert first.counters() == second.counters()


def test_a_weight_takes_at_most_forty_bytes():
    bank = make(np.zeros((100, 100), np.float32), "full,read_noise=fast", chip())
    low = bank._low
    arrays = [bank.bank.weights, bank.bank.variances, bank._high_variances, low.writes]
    arrays += [bank._g_plus, bank._g_minus]
    for group in (low.held, low._step, low._top, low._reset):
        arrays += group.values()
    assert sum(array.nbytes for array in arrays) <= 40 * 10_000


def test_the_chips_in_the_documentation_are_pcm2014_with_more_pairs(tmp_path):
    two_tiers, eight = documented(tmp_path, "pcm-two-tiers"), documented(tmp_path, "pcm-8-pairs")
    assert two_tiers.pulses == eight.pulses == load_chip("pcm2014").pulses
    assert (eight.cell.kind, eight.cell.pairs) == ("2pcm", 8)
    assert two_tiers.cell == chip().cell
    assert two_tiers.training.transfer_every % two_tiers.pulses.reset_every == 0
    assert type(make(spread_weights(5, 4), "full", two_tiers)) is FourPcmCells
