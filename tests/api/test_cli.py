"""Every command and flag of `pcmc`, as a user types it."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest

import pcmc
from pcmc.models import zoo


@pytest.fixture
def images(tmp_chdir):
    x, y = zoo.test_data("digits-mlp")
    np.savez(tmp_chdir / "images.npz", x=x[:20], y=y[:20])
    return tmp_chdir / "images.npz"


def program() -> pcmc.Program:
    return pcmc.compile("digits-mlp")


# compile


def test_compile_writes_a_program_named_like_the_model(done, tmp_chdir):
    text = done("compile", "digits-mlp")
    assert "digits-mlp.onnx on nature2018: 3 matrices" in text
    assert "written to digits-mlp.pcmc" in text
    assert pcmc.load(tmp_chdir / "digits-mlp.pcmc").report() == program().report()
    assert [path.name for path in tmp_chdir.iterdir()] == ["digits-mlp.pcmc"]


def test_compile_takes_a_file_and_writes_where_it_is_told(done, tmp_chdir):
    onnx.save(builders.mlp([6, 4]), tmp_chdir / "mine.v2.onnx")
    done("compile", tmp_chdir / "mine.v2.onnx")
    done("compile", "mine.v2.onnx", "-o", "other.pcmc", "--check")
    done("compile", "mine.v2.onnx", "--output", "third.pcmc")
    assert {path.name for path in tmp_chdir.glob("*.pcmc")} == {"mine.v2.pcmc", "other.pcmc", "third.pcmc"}
    assert Path("other.pcmc").read_bytes() == Path("third.pcmc").read_bytes()


def test_compile_takes_a_chip_file(done, tmp_chdir):
    (tmp_chdir / "mine.toml").write_text(
        'extends = "nature2018"\nname = "mine"\n[tile]\nrows = 40\ncols = 30\n'
    )
    assert "on mine: 3 matrices" in done("compile", "digits-mlp", "--chip", "mine.toml")
    assert pcmc.load("digits-mlp.pcmc").chip.tile.rows == 40


def test_compile_takes_shapes_and_frozen_inputs(done, tmp_chdir):
    nodes = [builders.node("MatMul", ["x", "w"], ["a"]), builders.node("Mul", ["a", "factor"], ["y"])]
    inputs = {"x": ["N", "T", 6], "factor": [2]}
    model = builders.model(nodes, inputs, {"y": ["N", "T", 2]}, {"w": builders.weights(6, 2)})
    onnx.save(model, "open.onnx")
    done("compile", "open.onnx", "--shape", "x=1,5,6", "--freeze", "factor=[1, 2.5]")
    loaded = pcmc.load("open.pcmc")
    assert [info.name for info in loaded.inputs] == ["x"]
    assert loaded.sample_shapes == {"x": (1, 5, 6)}
    assert loaded.options == {"shapes": {"x": [1, 5, 6]}, "freeze": {"factor": [1, 2.5]}}


def test_compile_writes_the_graph(done, tmp_chdir):
    done("compile", "digits-cnn", "--graph", "a.json")
    graph = json.loads(Path("a.json").read_text())
    assert [one["op_type"] for one in graph["operations"] if "matrix" in one] == ["Conv", "Conv", "Gemm"]
    for name in ("a.dot", "a.gv"):
        done("compile", "digits-cnn", "--graph", name)
        text = Path(name).read_text()
        assert text.startswith("digraph model {")
        assert text.count("shape=box") == 3
        assert text.count("{") == text.count("}")


def test_compile_prints_the_report_as_json(done):
    assert json.loads(done("compile", "digits-mlp", "--json")) == program().report()


# run


def test_run_prints_and_writes_outputs(done, images):
    done("compile", "digits-mlp")
    text = done("run", "digits-mlp.pcmc", "--input", images, "-o", "out.npz")
    assert "physics: ideal; seed 0" in text
    assert "written to out.npz" in text
    x = np.load(images)["x"]
    wanted = pcmc.Session(program()).run(None, {"x": x})[0]
    with np.load("out.npz") as written:
        assert written.files == ["logits"]
        assert np.array_equal(written["logits"], wanted)
    facts = json.loads(done("run", "digits-mlp", "--input", images, "--json"))
    assert facts["outputs"]["logits"] == {
        "shape": [20, 10], "dtype": "float32", "min": float(wanted.min()), "max": float(wanted.max()),
    }  # fmt: skip


def test_run_takes_physics_seed_and_threads(done, images):
    words = [
        "run",
        "digits-mlp",
        "--input",
        images,
        "--physics",
        "programming_error,adc",
        "--seed",
        "3",
        "-o",
        "out.npz",
    ]
    facts = json.loads(done(*words, "--threads", "1", "--json"))
    assert facts["physics"] == ["adc", "programming_error"]
    assert facts["seed"] == 3
    session = pcmc.Session(program(), "programming_error,adc", seed=3)
    with np.load("out.npz") as written:
        assert np.array_equal(written["logits"], session.run(None, {"x": np.load(images)["x"]})[0])


def test_run_takes_one_array_of_any_name(done, images):
    np.savez("other.npz", anything=np.load(images)["x"])
    first = done("run", "digits-mlp", "--input", images, "--json")
    assert done("run", "digits-mlp", "--input", "other.npz", "--json") == first


def test_run_writes_numbers_that_json_does_not_have_as_null(done):
    np.savez("nan.npz", x=np.full((1, 1, 8, 8), np.nan, np.float32))
    facts = json.loads(done("run", "digits-mlp", "--input", "nan.npz", "--json"), parse_constant=pytest.fail)
    assert facts["outputs"]["logits"]["max"] is None


# compare


def test_compare_a_shipped_model_on_its_own_data(done):
    facts = json.loads(done("compare", "digits-mlp", "--seeds", "2", "--json"))
    assert facts["samples"] == 450
    assert facts["data"] == "given"
    assert facts["seeds"] == [0, 1]
    assert facts["metrics"]["accuracy"]["onnxruntime"] == pytest.approx(0.9844, abs=1e-4)
    assert facts["ideal"][0]["largest"] <= 1e-5 * facts["ideal"][0]["scale"]
    assert len(facts["metrics"]["accuracy"]["physics"]["values"]) == 2


def test_compare_takes_every_flag(done, images):
    done("compile", "digits-mlp")
    words = [
        "--data",
        images,
        "--seeds",
        "1",
        "--seed",
        "4",
        "--physics",
        "adc",
        "--metric",
        "mae,accuracy",
        "--threads",
        "1",
    ]
    text = done("compare", "digits-mlp.pcmc", *words, "-o", "out.json")
    assert "20 samples against onnxruntime" in text
    assert "with adc; 1 seed\n" in text
    facts = json.loads(Path("out.json").read_text())
    assert facts["seeds"] == [4]
    assert facts["physics"] == ["adc"]
    assert list(facts["metrics"]) == ["mae", "accuracy"]
    assert json.loads(done("compare", "digits-mlp.pcmc", *words, "--json")) == facts


def test_compare_without_data_takes_random_input(done, tmp_chdir):
    onnx.save(builders.mlp([6, 4]), "mine.onnx")
    text = done("compare", "mine.onnx", "--seed", "-1")
    assert "16 random samples" in text
    assert "agreement" in text
    assert "accuracy" not in text
    assert "physics" in done("compare", "mine.onnx", "--physics", "ideal")


# report, show, where


def test_report_is_the_programs(done):
    done("compile", "digits-cnn")
    for name in ("digits-cnn", "digits-cnn.pcmc"):
        assert json.loads(done("report", name, "--json")) == pcmc.compile("digits-cnn").report()
    text = done("report", "digits-cnn.pcmc", "-o", "out.json")
    for word in (
        "Matrices",
        "Steps of one sample",
        "Components",
        "Digital operations",
        "node_conv2d",
        "latency",
        "energy",
        "area",
    ):
        assert word in text
    assert json.loads(Path("out.json").read_text())["model"] == "digits-cnn.onnx"


def test_report_takes_other_shapes_for_a_program_file(done):
    """An open dimension that no matrix depends on stays open: what the digital unit does depends on it."""
    nodes = [
        builders.node("MatMul", ["x", "w"], ["y"], name="dense"),
        builders.node("Neg", ["z"], ["n"], name="negated"),
    ]
    inputs = {"x": ["N", 6], "z": ["N", "T"]}
    onnx.save(
        builders.model(nodes, inputs, {"y": ["N", 2], "n": ["N", "T"]}, {"w": builders.weights(6, 2)}),
        "mine.onnx",
    )
    done("compile", "mine.onnx")
    for size in (1, 7):
        report = json.loads(done("report", "mine.pcmc", "--shape", f"z=1,{size}", "--json"))
        assert sum(step["digital_ops"] for step in report["layers"]) == size
        assert report["shapes"] == {"x": [1, 6], "z": [1, size]}


def test_show_names_inputs_banks_and_steps(done):
    text = done("show", "digits-mlp")
    for word in ("batch x 1 x 8 x 8", "node_linear_2", "digital_1", "logits"):
        assert word in text
    facts = json.loads(done("show", "digits-mlp", "--json"))
    assert [bank["name"] for bank in facts["banks"]] == ["node_linear", "node_linear_1", "node_linear_2"]
    assert [step["kind"] for step in facts["steps"]] == ["digital", "read"] * 3


def test_where_finds_a_layer_by_operation_and_by_initializer(done):
    facts = json.loads(done("where", "digits-mlp", "node_linear", "--json"))
    initializer = facts["initializer"]
    assert json.loads(done("where", "digits-mlp", initializer, "--json"))["blocks"] == facts["blocks"]
    assert sum(block["rows"] * block["cols"] for block in facts["blocks"]) == 65 * 128
    text = done("where", "digits-mlp", "node_linear")
    assert "matrix 64 x 128" in text
    assert "+ bias" in text
    digital = program().steps[2].layers[0]
    assert "stays digital, in step digital_1" in done("where", "digits-mlp", digital)


# chips, models, help


def test_chips_lists_all_and_shows_one(done, tmp_chdir):
    assert "nature2018" in done("chips")
    every = json.loads(done("chips", "--json"))
    assert [one["name"] for one in every] == pcmc.chip_names()
    assert json.loads(done("chips", "nature2018", "--json")) == every[pcmc.chip_names().index("nature2018")]
    text = done("chips", "nature2018")
    assert "[tile]" in text
    assert "rows = 513" in text
    (tmp_chdir / "mine.toml").write_text('extends = "nature2018"\nname = "mine"\n')
    assert "name: mine" in done("chips", "mine.toml")


def test_models_lists_the_shipped_ones(done):
    text = done("models")
    assert all(name in text for name in zoo.names())
    assert json.loads(done("models", "--json")) == zoo.describe()


def test_version(done):
    assert done("--version") == f"pcmc {pcmc.__version__}\n"


COMMANDS = {
    "compile": ("MODEL", "--chip", "--shape", "--freeze", "--output", "--graph", "--check", "--json"),
    "run": (
        "PROGRAM",
        "--input",
        "--output",
        "--chip",
        "--shape",
        "--freeze",
        "--physics",
        "--seed",
        "--threads",
        "--json",
    ),
    "compare": (
        "MODEL",
        "--data",
        "--seeds",
        "--metric",
        "--chip",
        "--shape",
        "--freeze",
        "--physics",
        "--seed",
        "--threads",
        "--output",
        "--json",
    ),
    "report": ("PROGRAM", "--chip", "--shape", "--freeze", "--output", "--json"),
    "show": ("PROGRAM", "--chip", "--shape", "--json"),
    "where": ("PROGRAM", "LAYER", "--chip", "--shape", "--json"),
    "chips": ("CHIP", "--json"),
    "models": ("--json",),
}


def test_help_lists_the_commands(done):
    text = done("--help")
    for command in COMMANDS:
        assert f"  {command} " in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_says_what_it_does_and_takes(done, command):
    text = done(command, "--help")
    for word in COMMANDS[command]:
        assert word in text
    assert len(text.splitlines()[2].strip()) > 20


def test_no_command_shows_the_help(run):
    result = run()
    assert result.code == 2
    assert "Commands:" in result.out + result.err


# Exit codes.


def test_too_little_memory_is_one_line_and_exit_code_1(run, monkeypatch):
    def hungry(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("pcmc.commands.inputs.compiled", hungry)
    result = run("compile", "digits-mlp")
    assert (result.code, result.out, result.err) == (1, "", "pcmc: not enough memory for this model\n")


def test_a_fault_of_ours_is_not_hidden(run, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("pcmc.commands.inputs.compiled", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        run("compile", "digits-mlp")


def test_a_message_is_one_line_without_control_characters(run, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise pcmc.ModelError("node 'a\nb\x1b[2J\u202e'")

    monkeypatch.setattr("pcmc.commands.inputs.compiled", broken)
    result = run("compile", "digits-mlp")
    assert result.code == 2
    assert result.err == "pcmc: node 'a\\nb\\x1b[2J\\u202e'\n"


# As a process of its own.


def process(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pcmc", *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_python_m_pcmc_is_the_command(tmp_path):
    done = process("compile", "digits-mlp", folder=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert (tmp_path / "digits-mlp.pcmc").is_file()
    wrong = process("compile", "no-such-model", folder=tmp_path)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert (
        wrong.stderr
        == "pcmc: no-such-model: no such file, and no shipped model: those are digits-mlp, digits-cnn\n"
    )


@pytest.mark.slow
def test_output_that_nobody_reads_is_no_traceback(tmp_path):
    words: Sequence[str] = [sys.executable, "-m", "pcmc", "report", "digits-mlp", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()


@pytest.mark.parametrize("flag", [("--chip", "nature2018"), ("--shape", "x=1,1,8,8"), ("--freeze", "x=1")])
def test_a_flag_of_the_compiler_on_a_compiled_program_is_refused(run, done, flag):
    done("compile", "digits-mlp", "-o", "m.pcmc")
    result = run("compare", "m.pcmc", *flag)
    assert result.code == 2
    why = "is for models; this program is compiled already: compile the model again"
    assert result.err == f"pcmc: m.pcmc: {flag[0]} {why}\n"
