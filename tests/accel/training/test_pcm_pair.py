"""PCM pairs alone in training: how they are programmed, pulsed, and emptied when they are near their end."""

import itertools
from typing import Any

import numpy as np
import pytest
from effects_measures import deviation, ks, mean, share
from scipy import stats
from trained_cells import RANGE, layout, make, spread_weights, two_blocks

from pcmc.accel.chip import ChipSpec, chip_from_dict, chip_to_dict, load_chip
from pcmc.accel.physics import resolve
from pcmc.accel.training.bank import PulseLaw
from pcmc.accel.training.bfloat16 import widened
from pcmc.accel.training.chain import Chain
from pcmc.accel.training.pcm_pair import PcmPairCells
from pcmc.accel.training.set_devices import SetPairs
from pcmc.accel.training.set_law import SetLaw
from pcmc.errors import ChipError

CHIP = load_chip("pcm2014")
UNIT = 20.0 / RANGE
"""uS of a weight of 1."""


def changed(**sections: dict[str, Any]) -> ChipSpec:
    """pcm2014 with some fields of some sections changed."""
    tables = chip_to_dict(CHIP)
    for name, fields in sections.items():
        tables[name] = tables[name] | fields
    return chip_from_dict(tables, "test")


def of_pairs(bank):
    """G+ and G- of all devices, relative to g_max of one."""
    devices = bank._devices
    return devices.held["plus"] / devices.full, devices.held["minus"] / devices.full


def test_the_chip_file_has_the_published_preset():
    pulses = CHIP.pulses
    assert (pulses.step * 2, pulses.growth, pulses.decay / 2) == (0.01, 27.235, 2.5)
    assert (pulses.noise, pulses.noise_offset * 2, pulses.noise_slope) == (0.6, 0.042, 0.108)
    assert (pulses.step_spread, pulses.range_spread, pulses.up_down_mismatch) == (0.2, 0.1, 0.05)
    assert (pulses.reset_level * 2, pulses.reset_spread * 2) == (0.01, 0.02)
    assert (pulses.reset_above, pulses.reset_other_above, pulses.reset_every) == (0.75, 0.25, 100)
    assert resolve("full", CHIP, training=True).names() == (
        "dac", "adc", "programming_error", "read_noise", "pulses", "step_mismatch", "pulse_noise",
    )  # fmt: skip
    with pytest.raises(ChipError, match=r"^physics leak: chip pcm2014 can't have it"):
        resolve("leak", CHIP, training=True)


# --- devices ---


def test_devices_differ_by_the_spreads_of_the_file():
    devices = SetPairs(layout(CHIP, "full", 300, 100), CHIP.cell, CHIP.pulses, RANGE)
    for side in ("plus", "minus"):
        step = widened(devices._step[side]) / (0.005 * RANGE) - 1
        wanted = np.hypot(0.2, 0.05)
        for found in (mean("step", step, 0.0, wanted), deviation("step", step, wanted)):
            assert found.deviation < found.allowed + 2e-3  # bfloat16
        top = widened(devices._top[side]) / RANGE - 1
        for found in (mean("top", top, 0.0, 0.1), deviation("top", top, 0.1)):
            assert found.deviation < found.allowed + 2e-3
        level = widened(devices._reset[side]) / RANGE
        empty = share("empty", level == 0, float(stats.norm.cdf(-0.5)))
        assert empty.deviation < empty.allowed
        law = stats.norm(0.005, 0.01)
        inside = (law.cdf(level[level > 0]) - law.cdf(0)) / law.sf(0)
        found = ks("reset", inside, lambda u: np.clip(u, 0, 1))
        assert found.deviation < found.allowed + 2e-3
    other = SetPairs(layout(CHIP, "full", 300, 100, seed=1), CHIP.cell, CHIP.pulses, RANGE)
    assert (devices._step["plus"] != devices._step["minus"]).mean() > 0.9
    assert (devices._step["plus"] != other._step["plus"]).mean() > 0.9


def test_devices_are_alike_without_mismatch():
    devices = SetPairs(layout(CHIP, "pulses,pulse_noise", 20, 10), CHIP.cell, CHIP.pulses, RANGE)
    for arrays, wanted in ((devices._step, 0.005), (devices._top, 1.0), (devices._reset, 0.005)):
        for side in ("plus", "minus"):
            assert len(np.unique(arrays[side])) == 1
            np.testing.assert_allclose(widened(arrays[side]), wanted * RANGE, rtol=2**-8)


# --- programming ---


@pytest.mark.parametrize("pairs", [1, 4])
def test_without_errors_a_pair_holds_its_weight_in_one_device_the_other_at_reset(pairs):
    weights = spread_weights(20, 10)
    bank = make(weights, "pulses,pulse_noise", changed(cell={"pairs": pairs}))
    np.testing.assert_allclose(bank.read_out(), weights.ravel(), atol=1e-6)
    plus, minus = of_pairs(bank)
    np.testing.assert_allclose(np.minimum(plus, minus), 0.005, rtol=2**-8)
    assert len(plus) == 200 * pairs
    np.testing.assert_array_equal(bank.pair_only(), bank.read_out())


def test_programming_errs_as_the_closed_loop_of_the_cell_does():
    weights = np.full((300, 100), 0.25, np.float32)  # 10 uS: x = 0.4
    bank = make(weights, "pulses,programming_error", CHIP)
    g = of_pairs(bank)[0] * 20 - 10 - 0.1  # RESET of the other has 0.1 uS
    sigma = 0.26348 + 1.9650 * 0.404 - 1.1731 * 0.404**2
    for found in (mean("mean", g, 0.0, sigma), deviation("deviation", g, sigma)):
        assert found.deviation < found.allowed + 2e-3
    assert bank.counters()["weight_error"] == pytest.approx(sigma / UNIT, rel=0.03)
    assert bank.counters()["pcm_resets"] == 60_000


def test_weights_beyond_the_range_are_clipped_and_counted():
    bank = make(np.array([[0.6, -0.7, -0.9, 0.2]], np.float32), "pulses", CHIP)
    np.testing.assert_allclose(bank.read_out(), [0.4975, -0.4975, -0.4975, 0.2], rtol=1e-3)
    counts = bank.counters()
    assert (counts["clipped_low"], counts["clipped_high"]) == (2, 1)


# --- RESET ---


def holding(plus, minus, **options):
    """A bank of one row whose devices hold so much of g_max."""
    bank = make(np.zeros((1, len(plus)), np.float32), "pulses,pulse_noise", CHIP, **options)
    for side, values in (("plus", plus), ("minus", minus)):
        bank._devices.held[side][:] = np.float32(RANGE) * np.array(values, np.float32)
    bank.bank.weights[:] = bank._devices.differences(slice(None))
    return bank


def test_pairs_of_which_one_is_high_and_the_other_not_low_are_written_anew():
    bank = holding([0.80, 0.80, 0.70, 0.30, 0.30, 0.76], [0.30, 0.20, 0.70, 0.80, 0.70, 0.90])
    before, w = of_pairs(bank), bank.read_out()
    bank.transfer(100)
    plus, minus = of_pairs(bank)
    written = np.array([True, False, False, True, False, True])
    np.testing.assert_array_equal((plus != before[0]) & (minus != before[1]), written)
    np.testing.assert_allclose(np.minimum(plus, minus)[written], 0.005, rtol=2**-8)
    np.testing.assert_allclose(bank.read_out(), w, atol=1e-6)  # W is what it was
    counts = bank.counters()
    assert (counts["rewritten"], counts["checks"], counts["pcm_resets"]) == (3, 1, 2 * (6 + 3))
    assert (counts["writes_max"], counts["writes_mean"]) == (2, 1.5)


def test_of_several_pairs_each_is_written_by_itself():
    bank = make(np.zeros((1, 2), np.float32), "pulses,pulse_noise", changed(cell={"pairs": 2}))
    full = bank._devices.full
    assert full == RANGE / 2
    bank._devices.held["plus"][:] = np.float32(full) * np.array([0.9, 0.1, 0.1, 0.8], np.float32)
    bank._devices.held["minus"][:] = np.float32(full) * np.array([0.6, 0.1, 0.1, 0.5], np.float32)
    bank.bank.weights[:] = 0.3 * full
    bank.transfer(100)
    plus, minus = of_pairs(bank)
    np.testing.assert_allclose(plus, [0.305, 0.1, 0.1, 0.305], rtol=1e-3)
    np.testing.assert_allclose(minus, [0.005, 0.1, 0.1, 0.005], rtol=2**-8)
    np.testing.assert_allclose(bank.read_out(), 0.3 * full, rtol=1e-5)


def test_training_empties_pairs_now_and_then_and_weights_still_move():
    bank = make(np.zeros((40, 30), np.float32), "full,-dac,-adc", CHIP)
    x, d = np.ones((1, 40), np.float32), np.ones((1, 30), np.float32)
    for example in range(1, 401):
        bank.bank.update(x, d if example % 2 else -d, bank.bank.law.step)
        if example % bank.transfer_every == 0:
            bank.transfer(example)
    counts = bank.counters()
    assert counts["rewritten"] > 1200
    assert counts["pulses_up"] == counts["pulses_down"] == 200 * 1200
    assert bank.read_out().std() > 0.1
    np.testing.assert_allclose(bank.read_out(), bank._devices.differences(slice(None)), atol=1e-5)


def test_reads_have_the_noise_of_what_devices_hold():
    chip = changed(effects={"read_noise": "fast"})
    bank = make(spread_weights(20, 10), "pulses,read_noise=fast", chip)
    quiet = make(spread_weights(20, 10), "pulses", chip)
    assert quiet.bank.variances is None
    before = widened(bank.bank.variances)
    assert (before > 0).all()
    bank._devices.held["plus"][:] = 0.6 * RANGE
    bank.transfer(100)
    assert (widened(bank.bank.variances) > 1.2 * before.min()).all()


# --- physics and kinds ---


def test_changes_without_pulses_are_exact_as_far_as_the_range_goes():
    bank = make(np.zeros((3, 4), np.float32), "step_mismatch", CHIP)
    assert isinstance(bank.bank.law, PulseLaw)
    assert bank.transfer_every == 0
    start = bank.read_out()
    x, d = np.ones((1, 3), np.float32), np.full((1, 4), -1.0, np.float32)
    bank.bank.update(x, d, 0.0123456)
    np.testing.assert_allclose(bank.read_out(), start + 0.0123456, rtol=1e-5)
    bank.bank.update(x, d, 1.0)
    np.testing.assert_allclose(bank.read_out(), RANGE, rtol=2**-8)


def test_stuck_devices_stay_where_they_are():
    chip = changed(cell={"stuck_low_fraction": 0.1, "stuck_high_fraction": 0.1})
    bank = make(spread_weights(60, 50), "pulses,stuck", chip)
    law = bank.bank.law
    assert isinstance(law, SetLaw)
    stuck = law.step_plus == 0
    found = share("stuck", stuck, 0.2)
    assert found.deviation < found.allowed
    before = law.plus[stuck].copy()
    assert set(np.unique(before).round(5)) == {0.0, np.float32(RANGE)}
    bank.bank.update(np.ones((9, 60), np.float32), -np.ones((9, 50), np.float32), law.step)
    for side in law.plus, law.minus:
        side[~stuck] = 0.9 * RANGE
    bank.transfer(100)
    np.testing.assert_array_equal(law.plus[stuck], before)


def test_cells_that_are_not_trained_are_programmed_once():
    bank = make(spread_weights(5, 4), "full", CHIP, trainable=False)
    before = bank.read_out()
    bank.leak(80)
    np.testing.assert_array_equal(bank.read_out(), before)
    assert (bank.transfer_every, bank.bank.law, bank.pull, bank.leak_factor) == (0, None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": {"transfer": "columns"}}, r'\[training\] transfer = "columns": must be "array"'),
        ({"cell": {"slices": 2}}, r"\[cell\] slices = 2: must be 1"),
    ],
)
def test_what_pairs_cannot_do_in_training_is_refused(sections, message):
    with pytest.raises(ChipError, match=f"^chip pcm2014 can't be trained: {message}"):
        make(spread_weights(5, 4), "full", changed(**sections))


@pytest.mark.parametrize("kind", ["full", "full,read_noise=fast", "step_mismatch"])
def test_a_bank_goes_on_from_its_arrays_to_the_bit(kind):
    chip = changed(cell={"pairs": 2})

    def go_on(bank):
        x, d = np.ones((30, 5), np.float32), np.tile(np.eye(3, 4, dtype=np.float32), (10, 1))
        bank.bank.update(x, d, 0.05)
        bank.transfer(100)
        return bank.arrays()

    weights = spread_weights(5, 4)
    first = make(weights, kind, chip)
    go_on(first)
    second = make(weights * 0, kind, chip)
    second.restore(first.arrays())
    wanted, found = go_on(first), go_on(second)
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert first.counters() == second.counters()


def test_a_device_is_drawn_by_its_place_alone():
    blocks = two_blocks(6, 4, 3)
    places = ((0, 0, 0, 0), (0, 0, 0, 4))
    both = make(np.zeros(42, np.float32), "full", CHIP, blocks=blocks, places=places)
    one = make(np.zeros((6, 4), np.float32), "full", CHIP)
    for name in ("plus", "step_plus", "top_minus"):
        np.testing.assert_array_equal(getattr(both.bank.law, name)[:24], getattr(one.bank.law, name))


def test_a_weight_of_one_pair_takes_at_most_forty_bytes():
    bank = make(np.zeros((100, 100), np.float32), "full,read_noise=fast", CHIP)
    devices = bank._devices
    arrays = [bank.bank.weights, bank.bank.variances, devices.writes]
    for group in (devices.held, devices._step, devices._top, devices._reset):
        arrays += group.values()
    assert sum(array.nbytes for array in arrays) <= 40 * 10_000


def test_training_a_chain_in_parts_equals_training_it_at_once():
    x = np.random.default_rng(0).standard_normal((200, 12)).astype(np.float32)
    labels = (x[:, 0] > 0).astype(np.int64)

    def trained(cuts):
        banks = [make(spread_weights(rows, cols, 0.2), "full", CHIP) for rows, cols in ((12, 9), (9, 2))]
        assert all(type(bank) is PcmPairCells for bank in banks)
        chain = Chain([bank.bank for bank in banks], ("tanh", "none"), "cross_entropy")
        for start, stop in itertools.pairwise(cuts):
            chain.train(x, labels, np.arange(start, stop), 0.01, start)
            for bank in banks:
                if stop % bank.transfer_every == 0:
                    bank.transfer(stop)
        return [bank.arrays() for bank in banks]

    for one, other in zip(trained((0, 100, 200)), trained((0, 33, 100, 171, 200)), strict=True):
        for name, array in one.items():
            np.testing.assert_array_equal(other[name], array, err_msg=name)
