"""Devices that a run saves with its program, and another run reads."""

import numpy as np
import pytest

import pcmc


@pytest.fixture
def images(tmp_chdir):
    np.savez("x.npz", x=np.random.default_rng(0).random((4, 1, 8, 8), np.float32))
    return "x.npz"


def logits(name):
    with np.load(name) as held:
        return held["logits"]


def test_devices_are_saved_with_a_program_and_read_again(done, images):
    """By whatever seed they are read: without read noise the results are those of the chip that was saved."""
    run = ["run", "digits-mlp", "--input", images, "--physics", "programming_error,drift", "--at", "1h"]
    done(*run, "--seed", "3", "--save-state", "chip.pcmc", "-o", "made.npz")
    done(*run, "--seed", "9", "--state", "chip.pcmc", "-o", "read.npz")
    done(*run, "--seed", "9", "-o", "other.npz")
    np.testing.assert_array_equal(logits("made.npz"), logits("read.npz"))
    assert not np.array_equal(logits("made.npz"), logits("other.npz"))


def test_the_same_from_python(images):
    program = pcmc.compile("digits-mlp")
    x = {"x": np.zeros((1, 1, 8, 8), np.float32)}
    session = pcmc.Session(program, "full", seed=4)
    session.save("chip.pcmc")
    again = pcmc.Session("chip.pcmc", "full", seed=4, state=pcmc.load_state("chip.pcmc"))
    np.testing.assert_array_equal(session.run(None, x)[0], again.run(None, x)[0])


def test_a_file_without_devices_and_ideal_devices_are_refused(refused, images):
    pcmc.compile("digits-mlp").save("p.pcmc")
    run = ["run", "digits-mlp", "--input", images]
    assert "p.pcmc: holds no devices" in refused(*run, "--physics", "full", "--state", "p.pcmc")
    assert "ideal mode has no devices" in refused(*run, "--save-state", "q.pcmc")
    pcmc.Session("p.pcmc", "full").save("q.pcmc")
    words = ["--physics", "full", "--state", "q.pcmc", "--calibrate", images]
    assert refused(*run, *words).startswith("--state and --calibrate")
