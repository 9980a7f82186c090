"""What `[cell]` sections of several kinds have in common: rules of their fields, and checks of two together.

Checks raise a ChipError that begins with the field.
"""

from pcmc.accel.fields import Real, Reals, shown
from pcmc.errors import ChipError

FIT_TEMPERATURE_K = 300.0
"""At which the statistics of devices hold, room temperature: the sources of the fits state none (assumed)."""

SHARE = Real(0.0, 1.0)
LOG_LAW = Reals(-10.0, 10.0, 0, 4)  # slope, offset, low, high; or none
SPLIT = Real(1e-9, 1e6, "s")
VOLTAGE = Real(0.0, 10.0, "V")
KELVIN = Real(1.0, 1000.0, "K")
CUBIC = Real(-0.3, 10.0)
LOSS = Real(-0.9, 0.9)


def polynomial(coefficients: tuple[float, ...], x: float) -> float:
    """c0 + c1 x + c2 x^2 + ..."""
    value = 0.0
    for coefficient in reversed(coefficients):
        value = value * x + coefficient
    return value


def check_deviation(
    name: str, coefficients: tuple[float, ...], g_max_us: float, unit_us: float = 1.0, g_min_us: float = 0.0
) -> None:
    """ChipError if a polynomial in G / unit_us is negative somewhere from g_min_us to g_max_us."""
    for percent in range(101):
        g = g_min_us + percent / 100 * (g_max_us - g_min_us)
        if polynomial(coefficients, g / unit_us) < 0:
            raise ChipError(
                f"{name} = {shown(coefficients)}: must not give a negative standard deviation, as it does at "
                f"{g:g} uS"
            )


def check_law(name: str, law: tuple[float, ...], above: tuple[float, ...] = ()) -> None:
    """ChipError if a law of `pcmc.accel.cells.pcm.law_of` lacks numbers or gives a negative value."""
    if law and (len(law) != 4 or not 0 <= law[2] <= law[3]):
        raise ChipError(
            f"{name} = {shown(law)}: must be [] or slope, offset, low and high with 0 <= low <= high"
        )
    if above and not law:
        raise ChipError(f"{name}_above = {shown(above)}: must be left out where {name} is")
    if above and (len(above) < 2 or not 0 < above[0] <= 1):
        raise ChipError(f"{name}_above = {shown(above)}: must be [] or an x in (0, 1] and then powers of x")
    for percent in range(101) if above else ():
        x = above[0] + (1 - above[0]) * percent / 100
        if polynomial(above[1:], x) < 0:
            raise ChipError(f"{name}_above = {shown(above)}: must not be negative, as it is at x = {x:g}")


def check_drift(mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
    """ChipError if one of the two laws of the drift exponent is given without the other."""
    if bool(mean) != bool(deviation):
        absent = "drift_deviation" if mean else "drift_mean"
        raise ChipError(f"{absent} = []: must be given too: drift has a mean and a deviation")


def check_stuck(low: float, high: float) -> None:
    """ChipError if more than all devices are stuck."""
    if low + high > 1:
        raise ChipError(
            f"stuck_high_fraction = {high:g}: must be at most 1 - stuck_low_fraction = {1 - low:g}"
        )
