"""Arms: each chip differs from that of the paper in what its name says, and in nothing else."""

import numpy as np
import pytest
from tiny_experiment import TINY, arrays

import pcmc
from pcmc.accel.chip import chip_to_dict, load_chip
from pcmc.models.networks import perceptron
from pcmc.workflows.reproduce.arms import ARMS, BASE, SENSITIVITIES


def differences(arm):
    base, own = chip_to_dict(load_chip(BASE)), chip_to_dict(ARMS[arm].chip)
    return {
        f"{section}.{name}": (table[name], own[section][name])
        for section, table in base.items()
        if isinstance(table, dict)
        for name in table
        if own[section].get(name) != table[name]
    }


def test_two_tier_is_the_chip_as_it_ships():
    assert ARMS["two-tier"].chip == load_chip(BASE)
    assert differences("no-inversion") == {"training.inversion": (True, False)}
    assert set(differences("verify")) == {"training.program_iterations", "training.verify_us"}


@pytest.mark.parametrize("name", SENSITIVITIES)
def test_sensitivities_change_one_constant_by_their_factor(name):
    ((old, new),) = differences(name).values()
    factor = float(name.rpartition("x")[2])
    assert np.asarray(new) == pytest.approx(factor * np.asarray(old))
    assert ARMS[name].tuning == "two-tier"


def test_cells_of_other_arms():
    assert ARMS["3t1c"].chip.cell.kind == "3t1c"
    assert ARMS["2pcm"].chip == load_chip("pcm2014")
    assert (ARMS["4pcm"].chip.cell.kind, ARMS["4pcm"].chip.cell.significance) == ("4pcm", 3.0)


def test_the_cells_of_arm_c_clip_and_do_nothing_else():
    data, model = arrays(), perceptron(TINY.sizes, seed=1)
    program = pcmc.compile(model, ARMS["C"].chip)
    results = {}
    for name, physics, full in (
        ("free", "ideal", None),
        ("wide", "step_mismatch", 50.0),
        ("narrow", "step_mismatch", 0.4),
    ):
        trainer = pcmc.Trainer(program, 0.05, physics=physics, weight_range=full, threads=1)
        trainer.fit(data.x_train, data.y_train, 3)
        results[name] = np.concatenate([bank.read_out() for bank in trainer.banks.values()])
    assert results["wide"] == pytest.approx(results["free"], abs=2e-5)
    assert np.abs(results["free"]).max() > 0.5
    # the bounds are kept with 8 bits
    assert np.abs(results["narrow"]).max() == pytest.approx(0.4, rel=2**-8)


def test_a_rate_is_of_one_example_whatever_the_batch():
    settings = ARMS["B"].settings
    assert settings.step_rate == pytest.approx(settings.rate * 16 * 0.1)
    assert ARMS["A"].settings.step_rate == ARMS["A"].settings.rate
