"""What `import pcmc` gives, and that it costs nothing until it is used."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

import pcmc
from pcmc import errors
from pcmc.models import zoo

HEAVY = ("numpy", "onnx", "onnxruntime", "networkx", "scipy", "pooch", "typer", "google.protobuf", "rich")


def modules_after(code: str) -> set[str]:
    """Modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys\n{code}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stderr.splitlines())


def test_import_pcmc_loads_nothing_heavy():
    loaded = modules_after("import pcmc")
    assert "pcmc.errors" in loaded
    assert not loaded & set(HEAVY)


COMMAND = "sys.argv = ['pcmc', '{}']\nfrom pcmc.cli import main\ntry: main()\nexcept SystemExit: pass"


def test_the_command_line_starts_without_onnx():
    loaded = modules_after(COMMAND.format("--version"))
    assert "typer" in loaded
    assert not loaded & {"numpy", "onnx", "onnxruntime", "networkx", "scipy"}


@pytest.mark.slow
def test_chips_and_models_are_listed_without_onnxruntime():
    for command in ("chips", "models"):
        assert not modules_after(COMMAND.format(command)) & {"onnx", "onnxruntime", "networkx", "scipy"}


@pytest.mark.parametrize("name", pcmc.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    value = getattr(pcmc, name)
    assert inspect.getdoc(value)
    assert name in dir(pcmc)
    assert getattr(pcmc, name) is value


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'pcmc' has no attribute 'nothing'"):
        pcmc.nothing  # noqa: B018
    assert not hasattr(pcmc, "Compiler")


def test_from_pcmc_import_star_gives_the_public_names():
    names: dict[str, object] = {}
    exec("from pcmc import *", names)
    assert set(pcmc.__all__) <= names.keys()


def test_the_errors_are_one_family():
    for name in ("ModelError", "ChipError", "ProgramError", "DataError", "OutputError"):
        assert issubclass(getattr(pcmc, name), pcmc.PcmcError)
        assert getattr(pcmc, name) is getattr(errors, name)
    assert not issubclass(pcmc.PcmcError, ValueError | OSError)


def test_the_signatures_are_those_of_the_documentation():
    wanted = {
        pcmc.compile: ["model", "chip", "shapes", "freeze", "digital", "check"],
        pcmc.load: ["path"],
        pcmc.Session: [
            "program",
            "physics",
            "seed",
            "threads",
            "state",
            "at",
            "compensation",
            "only",
            "interval",
            "calibration",
        ],
        pcmc.Session.run: ["self", "output_names", "input_feed", "run_options"],
        pcmc.compare: [
            "model",
            "chip",
            "data",
            "seeds",
            "physics",
            "metric",
            "shapes",
            "freeze",
            "digital",
            "samples",
            "seed",
            "threads",
            "at",
            "compensation",
            "ablate",
            "by_layer",
            "calibrate",
            "calibrate_what",
            "calibration",
        ],
        pcmc.calibrate: [
            "program",
            "data",
            "physics",
            "what",
            "seed",
            "threads",
            "at",
            "compensation",
            "only",
            "samples",
        ],
        pcmc.load_calibration: ["path", "program"],
        pcmc.Calibration.save: ["self", "program", "path"],
        pcmc.load_chip: ["name_or_path"],
        pcmc.Program.save: ["self", "path"],
        pcmc.Program.report: ["self", "shapes"],
    }
    for function, names in wanted.items():
        assert list(inspect.signature(function).parameters) == names


def test_the_report_has_what_the_documentation_promises():
    report = pcmc.compile("digits-mlp").report()
    promised = {
        "chips",
        "tiles",
        "cells",
        "utilization",
        "matrices",
        "layers",
        "digital",
        "traffic_bytes",
        "latency_s",
        "interval_s",
        "energy_j",
        "area_mm2",
    }
    assert promised <= report.keys()


def test_every_test_that_security_md_names_is_there():
    root = Path(__file__).resolve().parents[2]
    named = set(re.findall(r"`(test_\w+)`", (root / "docs" / "security.md").read_text()))
    defined = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    assert len(named) > 15
    assert named <= defined


def test_a_model_may_be_a_path_a_name_bytes_or_a_proto(tmp_path):
    import onnx

    from pcmc.models import zoo

    path = zoo.path("digits-mlp")
    wanted = pcmc.compile("digits-mlp").report()
    for model in (path, str(path), path.read_bytes(), onnx.load(path)):
        report = pcmc.compile(model).report()
        assert {**report, "model": ""} == {**wanted, "model": ""}


def test_the_rest_of_onnxruntimes_session_answers_too():
    session = pcmc.Session(pcmc.compile("digits-cnn"))
    theirs = onnxruntime.InferenceSession(zoo.path("digits-cnn"))
    ours, meta = session.get_modelmeta(), theirs.get_modelmeta()
    for name in (
        "producer_name",
        "graph_name",
        "domain",
        "description",
        "graph_description",
        "custom_metadata_map",
    ):
        assert getattr(ours, name) == getattr(meta, name), name
    assert session.get_overridable_initializers() == theirs.get_overridable_initializers() == []
    assert "CPUExecutionProvider" in session.get_providers()
