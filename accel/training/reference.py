"""The numpy twin of the compiled training kernels (`pcmc.accel._training`): same names, same signatures,
written from the formulas. It runs where no C compiler was at hand, and the kernels are tested against it.

All values are float32, in units of the weight; uint16 arrays are bfloat16, the upper half of a float32.

*Reads.* As in `pcmc.accel.reference`: with s the input range of a vector (the bias drive counts where a block
has a bias row), the DAC gives clip(rint(x / step), -L, L) * step with step = s / L. Each block's sum gets
sqrt(sum xq^2 variance) * N, then the ADC gives clip(rint(sum / lsb + offset), -L, L) * lsb with
lsb = adc_full * s / L; it clipped if it was beyond +-(L + 1/2) before rounding. A step or lsb that is zero or
not finite gives 0. N is number (vector * conversions + conversion) of the stream of normal numbers, where
vectors are counted on over all reads.

*Pulses* (Gokmen and Vlasov 2016, with the update management of aihwkit). With dx = max |x|, dd = max |d|:

    BL  = min(ceil(lr dx dd / step), most)                     slots; 0: nothing happens
    p_i = |x_i| sqrt(lr dd / (step BL dx))                     row i fires in a slot with this probability,
    q_j = |d_j| sqrt(lr dx / (step BL dd))                     column j with this one; both at most 1

A line's threshold is t = floor(65536 p + v) with v uniform from 0 to 1, and it fires in slot s if its uniform
16-bit number s is below t: the mean is p to 2^-33. Those numbers are halves, the lower first, of the words of
Threefry-4x32-12 with the counter {line, update (low, high), group}: of the 8 halves of each group, number 0
of group 0 makes v, the others are the slots. The bias row is line `rows`.

Without chance ("deterministic") BL = most always; a row fires in the first rint(p BL) slots, a column in
rint(q BL) slots, spread by bit reversal (van der Corput). What is below half a slot is lost: changes below
step / (4 BL) at full range of the other line, and always small ones on both, never happen.

A slot in which row and column fire is one pulse on their cell:

    up      low += up (1 + noise N) - slope_up (low - low_mid)
    down    low -= down (1 + noise N) + slope_down (low - low_mid)

The n pulses of one update on a cell all have one direction, and their sum is taken at once, with one normal
number, g = (1 - (1 - slope)^n) / slope, and low before them:

    up      low += g (up (1 + noise N / sqrt(n)) - slope_up (low - low_mid))

and likewise down, clipped to [low_min, low_max]; then the weight follows, w += sign * (change of low). The
mean is exact. So is the variance but for a share of (n slope)^2 / 12, since sqrt(sum (1 - slope)^2k) is
g / sqrt(n) but for half of that; and on the way to a bound a pulse hardly ever turns back. Where BL times the
largest slope is at most 1/32 (some 0.02 on nature2018), g = n - slope n (n - 1) / 2, right to a share of
(n slope)^2 / 6 < 2e-4. Normal numbers are taken in the order block, row, column.

In updates the bias row has the input 1 / bias_drive: its cells hold bias / bias_drive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pcmc.accel import reference as tile_reference
from pcmc.accel.training.bfloat16 import widened
from pcmc.accel.training.set_law import fire

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]
Ints = NDArray[np.int64]
Words = NDArray[np.uint64]

# Entries of `counts`: where the random streams stand, then events. The order is that of _training.h.
COUNTS = (
    "reads", "backward_reads", "evaluation_reads", "updates", "pulse_noise", "pulses_up", "pulses_down",
    "coincidences", "rows_fired", "cols_fired", "lines_clipped", "pulses_limited", "clipped_forward",
    "clipped_backward",
)  # fmt: skip
_AT = {name: index for index, name in enumerate(COUNTS)}

LEAK_EVERY = 80  # examples between two applications of the leak
SLOTS = 31  # most slots of a pulse train
_MOST_SLOPE = 1 / 32  # of all slots together, up to which g is taken as linear in the slope

_QUIET = np.errstate(all="ignore")
_ONE = np.float32(1)
_ONE_OVER_ROOT = (1 / np.sqrt(np.fmax(np.arange(SLOTS + 1), 1))).astype(np.float32)


class Bank:
    """One bank of cells; `pcmc.accel.training.bank.TrainingBank` checks all arguments.

    Args:
        weights: float32 [cells], changed in place.
        blocks: int64 [blocks, 6], columns row0, col0, rows, cols, bias, offset.
        shape: rows, cols of the matrix.
        bias_drive: what bias rows are driven with.
        ports: forward, then backward: (dac_levels, adc_levels, adc_full, offset [conversions] or empty).
        keys: uint64 [6, 2]: streams of forward, backward and evaluation noise, row and column pulses, pulse
            noise.
        counts: int64 [len(COUNTS)], changed in place.
        law: None, or (low, steps, slopes, bounds, leak or empty, low_mid, noise, step, leak_mean, the largest
            slope).
        pulses: most slots, 0: none, the change is exact; negative: deterministic.
        set_law: None, or `set_law.SetLaw.packed` in place of a law.
    """

    def __init__(
        self,
        weights: Floats,
        blocks: Ints,
        shape: tuple[int, int],
        bias_drive: float,
        ports: tuple[tuple[int, int, float, Floats], tuple[int, int, float, Floats]],
        keys: Words,
        counts: Ints,
        law: tuple[Any, ...] | None,
        pulses: int,
        set_law: tuple[Any, ...] | None = None,
    ) -> None:
        self.weights, self.blocks, self.shape, self.keys, self.counts = weights, blocks, shape, keys, counts
        self.bias_drive = np.float32(bias_drive)
        self.ports, self.law, self.pulses, self.set_law = ports, law, pulses, set_law
        self.sign = 1
        self.variances = np.zeros(0, np.uint16)
        self.has_bias = bool(blocks[:, 4].any())

    @_QUIET
    def forward(self, x: Floats, out: Floats, evaluating: bool) -> None:
        """Products of x [vectors, rows] with the bank, out [vectors, cols]."""
        scale = self._range(x)
        dac, _, _, _ = self.ports[0]
        inputs, drive = _to_codes(x, scale, dac), _to_codes(self._drive(len(x)), scale, dac)
        numbers = self._numbers(2 if evaluating else 0, len(x), int(self.blocks[:, 3].sum()))
        out[:] = 0
        stop = 0
        for rows, cols, at, bias in _each_block(self.blocks):
            stop, start = stop + at.shape[1], stop
            values = np.concatenate([inputs[:, rows], drive], axis=1) if bias else inputs[:, rows]
            sums = values @ self.weights[at]
            if numbers is not None:
                sums += np.sqrt((values * values) @ widened(self.variances[at])) * numbers[:, start:stop]
            out[:, cols] += self._digitize(sums, scale, 0, slice(start, stop))

    @_QUIET
    def backward(self, d: Floats, out: Floats) -> None:
        """Products of d [vectors, cols] with the transposed bank less its bias rows, out [vectors, rows]."""
        scale = np.fmax.reduce(np.abs(d), axis=1, initial=np.float32(0))[:, None]
        inputs = _to_codes(d, scale, self.ports[1][0])
        numbers = self._numbers(1, len(d), int((self.blocks[:, 2] - self.blocks[:, 4]).sum()))
        out[:] = 0
        stop = 0
        for rows, cols, at, bias in _each_block(self.blocks):
            cells = at[: len(at) - bias]
            stop, start = stop + len(cells), stop
            values = inputs[:, cols]
            sums = values @ self.weights[cells].T
            if numbers is not None:
                sums += np.sqrt((values * values) @ widened(self.variances[cells]).T) * numbers[:, start:stop]
            out[:, rows] += self._digitize(sums, scale, 1, slice(start, stop))

    @_QUIET
    def update(self, x: Floats, d: Floats, lr: float) -> None:
        """Change by -lr * outer(x, d) for vector after vector."""
        drives = self._drive(len(x))
        np.divide(_ONE, drives, out=drives, where=drives != 0)
        for values, errors in zip(np.concatenate([x, drives], axis=1), d, strict=True):
            if (self.law is None and self.set_law is None) or not self.pulses:
                self._change(values, errors, np.float32(lr))
            else:
                self._pulse(values, errors, np.float32(lr))
            self.counts[_AT["updates"]] += 1

    def leak(self, part: float, pull: float) -> None:
        """Let `low` decay for `part` of LEAK_EVERY examples, as `TrainingBank.leak` says."""
        assert self.law is not None
        low, leak, mean = self.law[0], self.law[4], np.float32(self.law[8])
        share, pulled = np.float32(part), np.float32(pull)
        if leak.size:
            moved = (low + pulled) * (_ONE - widened(leak) * share) - pulled * (_ONE - mean * share)
        else:
            moved = low * (_ONE - mean * share)
        self.weights += np.float32(self.sign) * (moved - low)
        low[:] = moved

    def _drive(self, vectors: int) -> Floats:
        return np.full((vectors, 1), self.bias_drive if self.has_bias else 0, np.float32)

    def _range(self, x: Floats) -> Floats:
        least = abs(self.bias_drive) if self.has_bias else np.float32(0)
        found: Floats = np.fmax.reduce(np.abs(x), axis=1, initial=least)[:, None]
        return found

    def _numbers(self, stream: int, vectors: int, conversions: int) -> Floats | None:
        """Normal numbers of each conversion of so many reads, which are counted; None: no noise."""
        first = int(self.counts[stream])
        self.counts[stream] += vectors
        if not self.variances.size:
            return None
        numbers = np.empty(vectors * conversions, np.float32)
        tile_reference.fill_gaussian(numbers, self.keys[stream], first * conversions, 0, numbers.size)
        return numbers.reshape(vectors, conversions)

    def _digitize(self, sums: Floats, scale: Floats, port: int, at: slice) -> Floats:
        _, levels, full, offset = self.ports[port]
        if not levels:
            return sums
        lsb = np.float32(full) * scale / np.float32(levels)
        live: Any = np.isfinite(lsb) & (lsb > 0)
        codes = sums / lsb + (offset[at] if offset.size else np.float32(0))
        clipped = live & ~(np.abs(codes) <= np.float32(levels + 0.5))
        self.counts[_AT["clipped_forward"] + port] += int(clipped.sum())
        return np.where(live, _rounded(codes, levels) * lsb, np.float32(0))

    def _change(self, values: Floats, errors: Floats, lr: np.float32) -> None:
        """The exact change, of the weights alone or of what `low` can hold."""
        for row0, cols, at, bias in _lines(self.blocks, self.shape[0]):
            lines = np.append(row0, self.shape[0]) if bias else row0
            driven = values[lines] != 0
            lines, at = lines[driven], at[driven]
            wanted = lr * (values[lines][:, None] * errors[cols])
            if self.law is None:
                self.weights[at] -= wanted
                continue
            low, bounds, sign = self.law[0], widened(self.law[3]), np.float32(self.sign)
            moved = low[at] - sign * wanted
            clipped = np.minimum(np.maximum(moved, bounds[at, 0]), bounds[at, 1])
            self.counts[_AT["pulses_limited"]] += int((clipped != moved).sum())
            self.weights[at] += sign * (clipped - low[at])
            low[at] = clipped

    def _pulse(self, values: Floats, errors: Floats, lr: np.float32) -> None:
        """The change in coincident pulses."""
        trains = self._trains(values, errors, lr)
        if trains is None:
            return
        rows, cols, slots = trains
        self.counts[_AT["rows_fired"]] += int((rows != 0).sum())
        self.counts[_AT["cols_fired"]] += int((cols != 0).sum())
        pulse = self._fire if self.set_law is None else self._fire_sets
        for row0, at_cols, at, bias in _lines(self.blocks, self.shape[0]):
            lines = np.append(row0, self.shape[0]) if bias else row0
            fired = rows[lines] != 0
            lines, cells = lines[fired], at[fired]
            upward = (values[lines] < 0)[:, None] == (errors[at_cols] < 0)
            both = np.ascontiguousarray(rows[lines][:, None] & cols[at_cols])
            pulse(cells.ravel(), _ones(both.ravel()), (upward == (self.sign < 0)).ravel(), slots)

    def _fire(self, cells: Ints, times: Ints, up: NDArray[np.bool_], slots: int) -> None:
        """So many pulses on each of the cells, up or down."""
        assert self.law is not None
        low_all, steps, slopes, bounds = self.law[:4]
        mid, noise = np.float32(self.law[5]), np.float32(self.law[6])
        hit = times > 0
        cells, times, up = cells[hit], times[hit], up[hit]
        low = low_all[cells]
        steep = bool(np.float32(self.law[9]) * np.float32(slots) > _MOST_SLOPE)
        step = np.where(up, widened(steps[cells, 0]), -widened(steps[cells, 1]))
        slope = np.where(up, widened(slopes[cells, 0]), widened(slopes[cells, 1]))
        size = _ONE + noise * self._pulse_numbers(len(cells), noise) * _ONE_OVER_ROOT[times]
        moved = low + _effect(times, slope, steep) * (step * size - slope * (low - mid))
        kept = np.minimum(np.maximum(moved, widened(bounds[cells, 0])), widened(bounds[cells, 1]))
        low_all[cells] = kept
        self.weights[cells] += np.float32(self.sign) * (kept - low)
        self._count_pulses(times, up, int((kept != moved).sum()))

    def _fire_sets(self, cells: Ints, times: Ints, up: NDArray[np.bool_], _slots: int) -> None:
        """So many SET pulses on a pair of each of the cells of a row, on G+ or on G-."""
        assert self.set_law is not None
        hit = times > 0
        cells, times, up = cells[hit], times[hit], up[hit]
        pair = int(self.counts[_AT["updates"]]) % int(self.set_law[12])
        numbers = self._pulse_numbers(int(times.sum()), np.float32(self.set_law[8]))
        devices = (pair * len(self.weights) + cells, up)
        change, limited = fire(self.set_law, devices, times, numbers)
        self.weights[cells] += np.float32(self.sign) * change
        self._count_pulses(times, up, limited)

    def _count_pulses(self, times: Ints, up: NDArray[np.bool_], limited: int) -> None:
        counts = {
            "pulses_up": times[up].sum(), "pulses_down": times[~up].sum(), "coincidences": len(times),
            "pulses_limited": limited,
        }  # fmt: skip
        for name, count in counts.items():
            self.counts[_AT[name]] += int(count)

    def _pulse_numbers(self, n: int, noise: np.float32) -> Floats:
        """Normal numbers of the next n pulses; none are taken without noise."""
        numbers = np.zeros(n, np.float32)
        if noise:
            at = int(self.counts[_AT["pulse_noise"]])
            tile_reference.fill_gaussian(numbers, self.keys[5], at, 0, n)
            self.counts[_AT["pulse_noise"]] += n
        return numbers

    def _step(self) -> np.float32:
        """The mean step."""
        if self.set_law is not None:
            return np.float32(self.set_law[11])
        assert self.law is not None
        return np.float32(self.law[7])

    def _trains(
        self, values: Floats, errors: Floats, lr: np.float32
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], int] | None:
        """The slots in which each row (the bias row last) and each column fires, a bit each, and how many
        slots there are; None: never.
        """
        largest = [float(np.fmax.reduce(np.abs(line), initial=np.float32(0))) for line in (values, errors)]
        step, most = float(self._step()), abs(self.pulses)
        wanted = float(lr) * largest[0] * largest[1] / step
        if not wanted > 0:
            return None
        slots = most if self.pulses < 0 or wanted > most else math.ceil(wanted)
        found = []
        for line, (own, other), key in ((values, largest, 3), (errors, largest[::-1], 4)):
            factor = np.float32(65536.0 * math.sqrt(float(lr) * other / (step * slots * own)))
            chance = np.where(line != 0, np.abs(line) * factor, np.float32(0))
            if wanted > most:
                self.counts[_AT["lines_clipped"]] += int((~(chance <= np.float32(65536))).sum())
            chance = np.where(chance < np.float32(65536), chance, np.float32(65536))
            if self.pulses < 0:
                found.append(_spread(chance, slots, spread=key == 4))
            else:
                update = int(self.counts[_AT["updates"]])
                found.append(_drawn(chance, slots, self.keys[key], update))
        return found[0], found[1], slots


def _drawn(chance: Floats, slots: int, key: Words, update: int) -> NDArray[np.uint32]:
    """Trains of lines that fire in a slot with the probability chance / 65536."""
    lines = np.arange(len(chance), dtype=np.uint32)
    low, high = np.uint32(update & 0xFFFFFFFF), np.uint32(update >> 32)
    bits = np.zeros(len(chance), np.uint32)
    threshold = np.zeros(len(chance), np.uint32)
    for half in range(slots + 1):
        if half % 8 == 0:
            words = tile_reference.threefry(key, (lines, low, high, np.uint32(half // 8)))
        number = words[half % 8 // 2] >> np.uint32(16 * (half % 2)) & np.uint32(0xFFFF)
        if half == 0:
            v = number.astype(np.float32) * np.float32(2.0**-16) + np.float32(2.0**-17)
            threshold = np.floor(chance + v).astype(np.uint32)
        else:
            bits |= (number < threshold).astype(np.uint32) << np.uint32(half - 1)
    return bits


def _effect(n: Ints, slope: Floats, steep: bool) -> Floats:
    """How many times the first pulse n of them do: the sum of (1 - slope)^k, k < n."""
    if not steep:
        found: Floats = n.astype(np.float32) - (n * (n - 1) // 2).astype(np.float32) * slope
        return found
    total = (n & 1).astype(np.float32)
    block, power = np.ones_like(slope), _ONE - slope
    for bit in (2, 4, 8, 16):
        block, power = block + block * power, power * power
        total = np.where(n & bit, total * power + block, total)
    return total


def _ones(trains: NDArray[np.uint32]) -> Ints:
    """How many bits of each are set."""
    counts: Ints = np.unpackbits(trains.reshape(-1, 1).view(np.uint8), axis=1).sum(axis=1, dtype=np.int64)
    return counts


def _spread(chance: Floats, slots: int, spread: bool) -> NDArray[np.uint32]:
    """Trains of lines that fire in the nearest number of slots: the first ones, or spread over all."""
    order = [int(f"{k:05b}"[::-1], 2) for k in range(32)] if spread else list(range(32))
    trains, masks = 0, [0]
    for slot in order:
        if slot < slots:
            trains |= 1 << slot
            masks.append(trains)
    count = np.rint(chance * np.float32(2.0**-16) * np.float32(slots)).astype(np.int64)
    found: NDArray[np.uint32] = np.array(masks, np.uint32)[count]
    return found


def _each_block(blocks: Ints) -> Iterator[tuple[slice, slice, Ints, int]]:
    """Rows and columns of the matrix, the cells [rows, cols] of each block, and whether the last is a bias
    row.
    """
    for row0, col0, rows, cols, bias, offset in blocks.tolist():
        at = offset + np.arange(rows * cols).reshape(rows, cols)
        yield slice(row0, row0 + rows - bias), slice(col0, col0 + cols), at, bias


def _lines(blocks: Ints, rows: int) -> Iterator[tuple[Ints, slice, Ints, int]]:
    """The same, rows as indices."""
    for here, cols, at, bias in _each_block(blocks):
        yield np.arange(rows)[here], cols, at, bias


def _rounded(codes: Floats, levels: float) -> Floats:
    """The nearest codes; a NaN is full scale."""
    whole = np.rint(np.where(np.isnan(codes), np.float32(np.inf), codes))
    return np.clip(whole, -levels, levels).astype(np.float32)


def _to_codes(values: Floats, scale: Floats, levels: int) -> Floats:
    """What a DAC of so many levels gives; 0 levels: the values."""
    if not levels:
        return values
    step = scale / np.float32(levels)
    live: Any = np.isfinite(step) & (step > 0)
    return np.where(live, _rounded(values / step, levels) * step, np.float32(0))


# ---- element-wise, and the loss ---------------------------------------------------------------------------


@_QUIET
def activate(kind: str, x: Floats, out: Floats) -> None:
    """f(x) to `out`, of one dimension; f is none, relu, tanh or sigmoid."""
    if kind == "relu":
        out[:] = np.where(x < 0, np.float32(0), x)
    elif kind == "tanh":
        out[:] = np.tanh(x)
    elif kind == "sigmoid":
        out[:] = _ONE / (_ONE + np.exp(-x))
    else:
        out[:] = x


@_QUIET
def activate_backward(kind: str, y: Floats, dy: Floats, out: Floats) -> None:
    """Derivatives dy * f'(x) to `out`, given y = f(x)."""
    if kind == "relu":
        out[:] = np.where(y > 0, dy, np.float32(0))
    elif kind == "tanh":
        out[:] = dy * (_ONE - y * y)
    elif kind == "sigmoid":
        out[:] = dy * (y * (_ONE - y))
    else:
        out[:] = dy


@_QUIET
def loss_and_grad(kind: str, z: Floats, labels: Ints, wanted: Floats, loss: Floats, grad: Floats) -> int:
    """Loss of each vector of z [vectors, cols], its gradient; how many are right. See `chain.loss_and_grad`.

    Targets are `labels` [vectors], or `wanted` [vectors, cols] if there are no labels.
    """
    cols = z.shape[1]
    if labels.size or not wanted.size:
        wanted = (labels[:, None] == (np.arange(cols) if cols > 1 else 1)).astype(np.float32)
    if kind == "cross_entropy":
        size = np.exp(z - z.max(axis=1, keepdims=True, initial=-np.inf))
        total = size.sum(axis=1, keepdims=True)
        weight = wanted.sum(axis=1, keepdims=True)
        grad[:] = size / total * weight - wanted
        shifted = z - z.max(axis=1, keepdims=True, initial=-np.inf) - np.log(total)
        loss[:] = -(wanted * shifted).sum(axis=1)
    elif kind == "mse":
        grad[:] = (z - wanted) * np.float32(2 / max(cols, 1))
        loss[:] = ((z - wanted) ** 2).sum(axis=1) / np.float32(max(cols, 1))
    else:
        grad[:] = (_ONE / (_ONE + np.exp(-z)) - wanted) / np.float32(max(cols, 1))
        loss[:] = (np.logaddexp(np.float32(0), z) - z * wanted).sum(axis=1) / np.float32(max(cols, 1))
    if cols == 1 and kind != "cross_entropy":
        return int(((z[:, 0] > (0.0 if kind == "bce" else 0.5)) == (wanted[:, 0] > 0.5)).sum())
    return int((z.argmax(axis=1) == wanted.argmax(axis=1)).sum()) if z.size else 0


# ---- a chain of banks -------------------------------------------------------------------------------------


def train(
    banks: Sequence[Bank],
    activations: Sequence[str],
    loss: str,
    trainable: Sequence[bool],
    x: Floats,
    labels: Ints,
    wanted: Floats,
    order: Ints,
    lr: float,
    first_example: int,
    pulls: NDArray[np.float64],
) -> tuple[float, int]:
    """Trains with one example after another, as `chain.Chain.train` says; sum of losses, how many are right.

    `pulls` [banks, 2]: the pull of the next leak, and its factor after each; changed in place.
    """
    total, right = 0.0, 0
    first = trainable.index(True) if True in trainable else len(banks)
    for example, index in enumerate(order.tolist(), first_example + 1):
        here = slice(index, index + 1)
        values = [x[here]]
        for bank, kind in zip(banks, activations, strict=True):
            y = np.empty((1, bank.shape[1]), np.float32)
            bank.forward(values[-1], y, False)
            activate(kind, y[0].copy(), y[0])
            values.append(y)
        error, d = np.empty(1, np.float32), np.empty_like(values[-1])
        right += loss_and_grad(loss, values[-1], labels[here], wanted[here], error, d)
        total += float(error[0])
        errors = []
        for k in reversed(range(first, len(banks))):
            activate_backward(activations[k], values[k + 1][0], d[0].copy(), d[0])
            errors.append((k, d))
            if k > first:
                d = np.empty((1, banks[k].shape[0]), np.float32)
                banks[k].backward(errors[-1][1], d)
        for k, d in reversed(errors):
            if trainable[k]:
                banks[k].update(values[k], d, lr)
        if example % LEAK_EVERY == 0:
            _leak(banks, trainable, pulls)
    return total, right


def _leak(banks: Sequence[Bank], trainable: Sequence[bool], pulls: NDArray[np.float64]) -> None:
    for bank, updated, pull in zip(banks, trainable, pulls, strict=True):
        if updated and bank.law is not None:
            bank.leak(1.0, pull[0])
            pull[0] *= pull[1]
