"""What every cell can do, and what its devices hold."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Devices:
    """What the devices of n cells hold after programming, as read-only float32 arrays [n].

    For conductive cells `g_plus` and `g_minus` are the conductances of each pair in uS. For ideal cells
    `g_plus` is the weights themselves, and `g_minus` is empty.
    """

    g_plus: Float32
    g_minus: Float32

    def __post_init__(self) -> None:
        for name in ("g_plus", "g_minus"):
            view = getattr(self, name).view()
            view.flags.writeable = False
            object.__setattr__(self, name, view)


class Cell(Protocol):
    """One kind of cell; it keeps parameters, never state, so one object serves all cells of a chip."""

    @property
    def g_max(self) -> float:
        """Largest conductance that is programmed, in uS."""

    def program(self, weights: Float32, unit_us: float, rng: np.random.Generator | None) -> Devices:
        """Program n cells from their erased state.

        Args:
            weights: [n], float32. Not changed.
            unit_us: microsiemens of W = F (G+ - G-) that stand for a weight of 1: F * g_max / w_max.
            rng: the stream of the programming error; None programs the targets exactly.
        """

    def read(
        self, devices: Devices, unit_us: float, rng: np.random.Generator | None, at_s: float = 20.0
    ) -> Float32:
        """The weights that a read-out finds, [n] float32; possibly a read-only view of `devices`.

        Args:
            devices: n programmed cells.
            unit_us: as in `program`.
            rng: the stream of the frozen read noise, one draw per device; None reads without noise.
            at_s: seconds since programming.
        """
