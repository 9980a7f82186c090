"""What a session does with time, and with what no machine could take."""

import builders
import numpy as np
import pytest

import pcmc
from pcmc.errors import ChipError, DataError
from pcmc.runtime.state import program_chip


@pytest.fixture(scope="module")
def program():
    return pcmc.compile(builders.mlp([60, 40], bias=False))


def read(session, **inputs):
    x = np.random.default_rng(0).standard_normal((4, 60)).astype(np.float32)
    return session.run(None, {"x": x} | inputs)[0]


@pytest.mark.parametrize("physics", ["drift", "programming_error", "read_noise"])
def test_reprogrammed_devices_err_drift_and_are_noisy_in_another_way(program, physics):
    session = pcmc.Session(program, physics, at="1y")
    first = read(session)
    session.reprogram()
    assert np.abs(read(session) - first).max() > 0


def test_devices_are_saved_with_their_time(program, tmp_path):
    session = pcmc.Session(program, "programming_error,drift", seed=2)
    session.wait("1h")
    session.save(tmp_path / "a.pcmc")
    again = pcmc.Session(
        program, "programming_error,drift", seed=5, state=pcmc.load_state(tmp_path / "a.pcmc")
    )
    assert again.at_s == session.at_s == 3620.0
    np.testing.assert_array_equal(read(again), read(session))
    later = pcmc.Session(program, "drift", state=pcmc.load_state(tmp_path / "a.pcmc"), at="1d")
    assert later.at_s == 86_400.0


def test_a_refused_wait_or_input_leaves_time_as_it_was(program):
    session = pcmc.Session(program, "full", at=0, interval="20s")
    first = read(session)
    with pytest.raises(ChipError, match="must be at least 20 s"):
        session.wait("1s")
    assert session.at_s == 0
    with pytest.raises(DataError, match="there is no input 'zz'"):
        read(session, zz=np.zeros(1, np.float32))
    assert session.at_s == 0
    read(session)
    assert session.at_s == 20.0
    assert first.shape == (4, 40)


@pytest.mark.parametrize("at", [0, "1ms", "20s"])
def test_compensation_leaves_alone_what_has_not_drifted(program, at):
    plain, mended = (
        read(pcmc.Session(program, "programming_error,drift", at=at, compensation=choice))
        for choice in ("none", "column")
    )
    np.testing.assert_array_equal(plain, mended)


def test_waiting_leaves_the_reference_of_the_compensation_as_it_was(program):
    """The factors are over what the first read found, whatever noise later reads have."""
    one, two = (pcmc.Session(program, "read_noise,drift", compensation="global") for _ in range(2))
    one.wait("1h")
    two.wait("30min")
    two.wait("30min")
    gains = [session._banks["dense0"].gain for session in (one, two)]
    assert gains[0] == pytest.approx(gains[1], rel=0.02)


def test_only_takes_any_collection_and_refuses_what_is_no_bank(program):
    whole, alone = (read(pcmc.Session(program, "full", only=only)) for only in (None, iter(["dense0"])))
    np.testing.assert_array_equal(whole, alone)
    for options, message in (
        ({"only": "dense"}, "only: there is no bank 'dense'"),
        ({"calibration": {"zz": None}}, "calibration: there is no bank 'zz'"),
        ({"threads": 1_000_000}, "must be 0 \\(all processors\\) to 1,024"),
        ({"interval": None}, "time None: should be a number with a unit"),
    ):
        with pytest.raises(DataError, match=message):
            pcmc.Session(program, "full", **options)
    with pytest.raises(DataError, match="devices of some banks can't be saved"):
        pcmc.Session(program, "full", only=["dense0"]).save("nowhere.pcmc")


@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-37, 1e30, 1e37])
@pytest.mark.parametrize("chip", ["nature2018", "truenorth", "isaac", "hermes64"])
def test_weights_however_small_or_large_leave_no_nan(chip, scale):
    model = builders.mlp([20, 13])
    weights = builders.weights(20, 13, seed=1).astype(np.float64)
    weights[:, 3] = 0
    weights[2, 4] *= scale
    weights[:, 5] *= scale
    for tensor in model.graph.initializer:
        if tensor.name == "w0":
            tensor.raw_data = weights.astype(np.float32).tobytes()
    one = pcmc.compile(model, chip)
    state = program_chip(
        one, pcmc.Physics(programming_error="programming_error" in one.chip.available_effects), 0
    )
    assert np.isfinite(state.banks["dense0"].devices.g_plus).all()
    for physics in ("full", "full,-adc" if not one.chip.effects.readout_noise else "full"):
        y = pcmc.Session(one, physics).run(None, {"x": np.ones((3, 20), np.float32)})[0]
        assert not np.isnan(y).any()


@pytest.mark.parametrize("value", [1e38, 3.4e38, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("physics", ["dac", "dac,read_noise=fast", "dac,adc", "full"])
def test_no_input_makes_a_nan_of_a_read(program, physics, value):
    x = np.random.default_rng(0).standard_normal((12, 60)).astype(np.float32)
    with np.errstate(over="ignore"):
        x[::2] *= np.float32(value) if np.isfinite(value) else 1
    x[::3, 5] = value
    assert not np.isnan(pcmc.Session(program, physics).run(None, {"x": x})[0]).any()
