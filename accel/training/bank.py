"""A bank of cells that is trained where it lies: read both ways, and updated by an outer product.

    bank = TrainingBank(blocks, rows, cols, weights, law=law, pulses=Pulses("stochastic", 31),
                        forward=Port(127, 255, 12.0), backward=Port(127, 255, 12.0), seed=0, place=(2,))
    y = bank.forward(x)          # [vectors, rows] -> [vectors, cols]
    e = bank.backward(d)         # [vectors, cols] -> [vectors, rows]
    bank.update(x, d, lr)        # -lr * outer(x, d), vector after vector
    bank.leak(80, pull)          # what 80 examples of waiting do to the low tier
    bank.sign = -1               # polarity inversion: from now on a pulse up lowers the weight

`weights`, and all else here, is in units of the weight; cells are packed block after block, each row-major,
and the table of blocks is that of `pcmc.accel.tile`. The formulas are those of
`pcmc.accel.training.reference`, which takes over where the compiled kernels are missing (or with
PCMC_KERNELS=numpy). Pulses have the same bits on every instruction set and in the twin; sums of reads have
the same bits on one instruction set, however vectors are batched (the twin rounds a batch as BLAS does).
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from pcmc.accel import tile
from pcmc.accel.random import gaussian_key
from pcmc.accel.training import reference
from pcmc.accel.training.bfloat16 import widened
from pcmc.accel.training.set_law import SetLaw

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Ints = NDArray[np.int64]

LEAK_EVERY = reference.LEAK_EVERY
MOST_SLOTS = reference.SLOTS

# The named streams of a bank, in the order in which the kernels take their keys.
_STREAMS = (
    "forward_noise", "backward_noise", "evaluation_noise", "row_pulses", "column_pulses", "pulse_noise",
)  # fmt: skip
_NO_HALVES = np.zeros(0, np.uint16)
_NO_FLOATS = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class PulseLaw:
    """What a pulse does to the low tier of each cell, and what time does (aihwkit's LinearStep, as a leak).

    Arrays are packed as the cells; uint16 ones are bfloat16, the upper half of a float32, and parameters of
    a cell that a pulse takes both or either of lie side by side. A pulse up is

        low += up * (1 + noise * N) - slope_up * (low - low_mid)

    and one down subtracts the same with `down` and `slope_down`; `low` is clipped to [low_min, low_max].
    The pulses of one update on a cell act at once: `pcmc.accel.training.reference` has their sum. Of its
    distance from where it leaks to, a cell loses `leak` in LEAK_EVERY examples.

    Args:
        low: float32, what the low tier holds; changed in place.
        steps: uint16 [cells, 2], size of a step up and down.
        slopes: uint16 [cells, 2], slope_up and slope_down: what a step loses per distance from `low_mid`.
        bounds: uint16 [cells, 2], low_min and low_max.
        leak: uint16, 1 - exp(-LEAK_EVERY examples / tau) of each cell; None: `leak_mean` for all.
        low_mid: where a step is `up` or `down`.
        noise: standard deviation of the size of a pulse, relative.
        step: mean size of a step.
        leak_mean: of the mean time constant, which the reference leaks with.
    """

    low: Floats
    steps: Halves
    slopes: Halves
    bounds: Halves
    leak: Halves | None
    low_mid: float
    noise: float
    step: float
    leak_mean: float = 0.0

    @property
    def low_min(self) -> Halves:
        """Lower bounds [cells]."""
        return self.bounds[:, 0]

    @property
    def low_max(self) -> Halves:
        """Upper bounds [cells]."""
        return self.bounds[:, 1]


@dataclass(frozen=True, slots=True, eq=False)
class Port:
    """The converters of one direction; levels L = 2^(bits - 1) - 1, and 0 switches one off.

    `adc_full` is the full scale in units of (weight x input range), `offset` float32 [conversions] a fixed
    offset of each converter in LSB, added before rounding. A conversion is a column (backward: a row that is
    no bias row) of a block, counted block after block.
    """

    dac_levels: int = 0
    adc_levels: int = 0
    adc_full: float = 0.0
    offset: Floats | None = None


OFF = Port()


@dataclass(frozen=True, slots=True)
class Pulses:
    """How an update becomes pulses: "stochastic" (each line by chance) or "deterministic"; slots at most."""

    kind: str = "stochastic"
    most: int = MOST_SLOTS

    def __post_init__(self) -> None:
        if self.kind not in ("stochastic", "deterministic"):
            raise ValueError(f"pulses are {self.kind!r}, should be 'stochastic' or 'deterministic'")
        if not 1 <= self.most <= MOST_SLOTS:
            raise ValueError(f"most pulses are {self.most}, should be 1 to {MOST_SLOTS}")


class TrainingBank:
    """All blocks of a matrix [rows, cols], with the tiers that training changes.

    Args:
        blocks: int64 [blocks, 6], as `pcmc.accel.tile.make_bank` takes it.
        rows, cols: of the matrix.
        weights: float32 [cells], copied.
        bias_drive: what bias rows are driven with in reads. They hold bias / bias_drive, so that updates
            drive them with 1 / bias_drive: the bias itself changes by -lr * d.
        law: of the low tier, or of pairs that SET pulses change; None: the weights themselves are changed,
            exactly.
        pulses: None: the low tier is changed exactly, as far as it goes; a `SetLaw` takes some.
        forward, backward: converters.
        variances: bfloat16 [cells] of the fast noise of each cell; None: reads are quiet.
        seed, place: name the random streams of this bank.

    Raises:
        ValueError: something does not fit the table of blocks.
    """

    __slots__ = ("_counts", "_kernel", "_sign", "_variances", "cols", "law", "rows", "weights")

    def __init__(
        self,
        blocks: Ints,
        rows: int,
        cols: int,
        weights: Floats,
        *,
        bias_drive: float = 1.0,
        law: PulseLaw | SetLaw | None = None,
        pulses: Pulses | None = None,
        forward: Port = OFF,
        backward: Port = OFF,
        variances: Halves | None = None,
        seed: int = 0,
        place: tuple[int, ...] = (),
    ) -> None:
        checked = tile.make_bank(weights, blocks, rows, cols)
        checked.cells.flags.writeable = True  # a copy that is ours alone
        table, self.weights, self.law = checked.blocks, checked.cells, law
        self.rows, self.cols = rows, cols
        self._counts = np.zeros(len(reference.COUNTS), np.int64)
        backward_conversions = int((table[:, 2] - table[:, 4]).sum())
        ports = (
            _packed_port("forward", forward, checked.conversions),
            _packed_port("backward", backward, backward_conversions),
        )
        keys = np.array([gaussian_key(seed, place, name) for name in _STREAMS], np.uint64)
        most = 0 if pulses is None else pulses.most if pulses.kind == "stochastic" else -pulses.most
        if isinstance(law, SetLaw) and pulses is None:
            raise ValueError("a law of SET pulses takes pulses")
        self._kernel = kernels().Bank(
            self.weights, table, (rows, cols), float(bias_drive), ports, keys, self._counts,
            _packed_law(law, self.weights.size) if isinstance(law, PulseLaw) else None, most,
            law.packed(self.weights.size) if isinstance(law, SetLaw) else None,
        )  # fmt: skip
        self.sign = 1
        self.variances = variances

    @property
    def kernel(self) -> reference.Bank:
        """What the kernels take."""
        found: reference.Bank = self._kernel
        return found

    @property
    def sign(self) -> int:
        """Polarity: +1, or -1 where the low tier counts negative."""
        return self._sign

    @sign.setter
    def sign(self, sign: int) -> None:
        if sign not in (1, -1):
            raise ValueError(f"a polarity is {sign}, should be 1 or -1")
        self._sign = self._kernel.sign = int(sign)

    @property
    def variances(self) -> Halves | None:
        """Variances of the fast noise of each cell, bfloat16 [cells], copied; None: reads are quiet."""
        return self._variances

    @variances.setter
    def variances(self, variances: Halves | None) -> None:
        if variances is None:
            self._variances, self._kernel.variances = None, _NO_HALVES
            return
        _check("variances", variances, np.uint16, self.weights.size)
        padded = np.zeros(variances.size + tile.CELL_PADDING, np.uint16)
        padded[: variances.size] = variances
        self._variances = self._kernel.variances = padded[: variances.size]

    def forward(self, x: Floats, y: Floats | None = None, *, evaluating: bool = False) -> Floats:
        """Products of x, float32 [vectors, rows], with the weights: float32 [vectors, cols], in `y` if given.

        With `evaluating` the noise comes from a stream of its own, so that training goes on as if this read
        had not been.
        """
        x = _input(x, self.rows)
        out = _room(y, len(x), self.cols)
        self._kernel.forward(x, out, evaluating)
        return out

    def backward(self, d: Floats) -> Floats:
        """Products of d, float32 [vectors, cols], with the transposed weights: float32 [vectors, rows].

        Bias rows give no output.
        """
        d = _input(d, self.cols)
        out = np.empty((len(d), self.rows), np.float32)
        self._kernel.backward(d, out)
        return out

    def update(self, x: Floats, d: Floats, lr: float) -> None:
        """Change the weights by -lr * outer(x, d) for each vector, one after the other; biases by -lr * d.

        Without a law w -= lr * (x_i * d_j), each operation in float32. With a law and no pulses the low tier
        takes the change, as far as its bounds allow; with pulses see `pcmc.accel.training.reference`.

        Args:
            x: float32 [vectors, rows], what was read forward.
            d: float32 [vectors, cols], the derivative of the loss by the outputs of that read.
            lr: learning rate, not negative.
        """
        x, d = _input(x, self.rows), _input(d, self.cols)
        if len(x) != len(d):
            raise ValueError(f"an update has {len(x)} inputs and {len(d)} errors")
        if not 0 <= lr < np.inf:
            raise ValueError(f"a learning rate is {lr}, should be finite and not negative")
        self._kernel.update(x, d, float(lr))

    def leak(self, examples: float, pull: float) -> None:
        """Let the low tier leak for the time of so many examples; PCM, and what has no law, does not.

            low' = (low + pull) * (1 - leak * part) - pull * (1 - leak_mean * part)

        with part = examples / LEAK_EVERY.

        Args:
            examples: how many, at most about LEAK_EVERY (the loss is taken as linear in time).
            pull: how far the reference lies above what all leak to (g_ref - g(0.8 V)) now, in units of the
                weight. Where all cells leak alike it cancels.
        """
        if isinstance(self.law, PulseLaw):
            self._kernel.leak(examples / LEAK_EVERY, pull)

    @property
    def counters(self) -> dict[str, int]:
        """Events since the start, by the names of `reference.COUNTS`."""
        return dict(zip(reference.COUNTS, self._counts.tolist(), strict=True))

    def state(self) -> dict[str, int]:
        """Where the random streams stand, and the events so far; for `restore`."""
        return self.counters

    def restore(self, state: Mapping[str, int]) -> None:
        """Go on from a `state()`; ValueError if it is none."""
        if set(state) != set(reference.COUNTS):
            raise ValueError(
                f"a state has the entries {sorted(state)}, should have {sorted(reference.COUNTS)}"
            )
        for index, name in enumerate(reference.COUNTS):
            self._counts[index] = state[name]


@functools.cache
def kernels() -> ModuleType:
    """The module with the training kernels: the compiled ones, or else the numpy twins, with a warning."""
    if tile.kernels().__name__ == "pcmc.accel.reference":
        return reference
    try:
        return importlib.import_module("pcmc.accel._training")
    except ImportError as error:
        warnings.warn(
            f"the compiled kernels of pcmc are missing ({error}); training runs on numpy, and is slow. "
            "Install a C compiler and then pcmc again (pip install --force-reinstall --no-deps pcmc).",
            RuntimeWarning,
            stacklevel=3,
        )
        return reference


def _packed_port(name: str, port: Port, conversions: int) -> tuple[int, int, float, Floats]:
    """As the kernels take it."""
    for field in ("dac_levels", "adc_levels"):
        if not 0 <= getattr(port, field) <= tile.MOST_LEVELS:
            raise ValueError(
                f"{field} of the {name} port is {getattr(port, field)}, should be 0 to {tile.MOST_LEVELS}"
            )
    if port.adc_levels and not 0 < port.adc_full < np.inf:
        raise ValueError(f"adc_full of the {name} port is {port.adc_full}, should be positive and finite")
    if port.offset is not None:
        _check(f"offset of the {name} port", port.offset, np.float32, conversions)
    return port.dac_levels, port.adc_levels, port.adc_full, _NO_FLOATS if port.offset is None else port.offset


def _packed_law(law: PulseLaw, cells: int) -> tuple[object, ...]:
    """As the kernels take it."""
    _check("low", law.low, np.float32, cells)
    for name in ("steps", "slopes", "bounds"):
        _check(name, getattr(law, name), np.uint16, cells, 2)
    if law.leak is not None:
        _check("leak", law.leak, np.uint16, cells)
    if not 0 < law.step < np.inf or not 0 <= law.noise < np.inf:
        raise ValueError(
            f"a law has the step {law.step} and noise {law.noise}: one is not positive, or not finite"
        )
    leak = _NO_HALVES if law.leak is None else law.leak
    steepest = float(widened(law.slopes).max(initial=0))
    return (
        law.low, law.steps, law.slopes, law.bounds, leak, law.low_mid, law.noise, law.step, law.leak_mean,
        steepest,
    )  # fmt: skip


def _check(name: str, values: NDArray[np.generic], kind: type[np.generic], *shape: int) -> None:
    if values.dtype != kind or values.shape != shape or not values.flags.c_contiguous:
        raise ValueError(
            f"{name} is {values.dtype} {values.shape}, should be {np.dtype(kind)} {shape} in one piece"
        )


def _input(x: Floats, width: int) -> Floats:
    if x.dtype != np.float32 or x.ndim != 2 or x.shape[1] != width:
        raise ValueError(f"an input is {x.dtype} {x.shape}, should be float32 [vectors, {width}]")
    return np.ascontiguousarray(x)


def _room(y: Floats | None, vectors: int, width: int) -> Floats:
    if y is None:
        return np.empty((vectors, width), np.float32)
    if (
        y.dtype != np.float32
        or y.shape != (vectors, width)
        or not y.flags.c_contiguous
        or not y.flags.writeable
    ):
        raise ValueError(
            f"room for outputs is {y.dtype} {y.shape}, should be float32 {(vectors, width)}, writeable"
        )
    return y
