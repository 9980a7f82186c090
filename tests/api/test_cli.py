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
from pcmc.commands import text as text_of
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
    assert loaded.options == {"shapes": {"x": [1, 5, 6]}, "freeze": {"factor": [1, 2.5]}, "digital": []}


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


def test_compare_ablates_and_ranks_layers(done, images):
    words = ["compare", "digits-mlp", "--data", images, "--seeds", "2", "--physics", "adc,programming_error"]
    text = done(*words, "--ablate", "--by-layer", "-o", "out.json")
    facts = json.loads(Path("out.json").read_text())
    data = np.load(images)["x"], np.load(images)["y"]
    python = pcmc.compare(
        program(), data=data, seeds=2, physics="adc,programming_error", ablate=True, by_layer=True
    )
    assert facts == json.loads(json.dumps(python.as_dict()))
    effects, layers = text.split("what each effect costs")[1].split("what each matrix costs")
    for table, names in (
        (effects, [one.effect for one in python.ablation]),
        (layers, [one.layer for one in python.layers]),
    ):
        assert [line.split()[0] for line in table.splitlines()[4:] if line] == names
    first = python.layers[0]
    assert f"{first.cost['accuracy'].mean + 0.0:+.4f} [" in layers
    assert f"{first.share:.1%}" in layers
    assert json.loads(done(*words, "--ablate", "--by-layer", "--json")) == facts
    assert "what each" not in done(*words)
    assert "what each matrix" not in done(*words, "--ablate")
    assert "what each effect" not in done(*words, "--by-layer")


def test_compare_of_one_seed_shows_costs_without_an_interval(done, images):
    words = ["--data", images, "--seeds", "1", "--ablate", "--by-layer"]
    text = done("compare", "digits-mlp", *words).split("what each effect costs")[1]
    assert "+0.0000" in text
    assert "-0.0000" not in text
    assert "[" not in text


@pytest.mark.parametrize(
    ("value", "shown"), [(-1e-9, "+0.0000"), (0.0, "+0.0000"), (-0.00126, "-0.0013"), (0.25, "+0.2500")]
)
def test_a_difference_has_a_sign_and_is_never_minus_zero(value, shown):
    assert text_of.signed(value) == shown


def test_time_and_compensation_are_flags(done, images):
    words = ["digits-mlp", "--physics", "programming_error,drift", "--at", "1d", "--compensation", "global"]
    facts = json.loads(done("compare", *words, "--data", images, "--seeds", "1", "--json"))
    assert (facts["at"], facts["compensation"]) == ("1d", "global")
    done("run", *words, "--input", images, "-o", "out.npz")
    session = pcmc.Session(program(), "programming_error,drift", at="1d", compensation="global")
    with np.load("out.npz") as written:
        assert np.array_equal(written["logits"], session.run(None, {"x": np.load(images)["x"]})[0])


# layers that stay digital


def test_every_command_that_compiles_keeps_layers_digital(done, images):
    flag = ["--digital", "node_linear,node_linear_2"]
    done("compile", "digits-mlp", *flag, "--graph", "a.json")
    loaded = pcmc.load("digits-mlp.pcmc")
    assert list(loaded.banks) == ["node_linear_1"]
    assert loaded.options["digital"] == ["node_linear", "node_linear_2"]
    graph = json.loads(Path("a.json").read_text())
    assert [one["name"] for one in graph["operations"] if "matrix" in one] == ["node_linear_1"]
    report = json.loads(done("report", "digits-mlp", *flag, "--json"))
    assert report == loaded.report()
    assert report["digital"]["node_linear"] == "Gemm: kept digital on request"
    assert "kept digital on request" in done("where", "digits-mlp", "node_linear", *flag)
    facts = json.loads(done("show", "digits-mlp", *flag, "--json"))
    assert [bank["name"] for bank in facts["banks"]] == ["node_linear_1"]
    again = done("report", "digits-mlp", "--digital", "node_linear", "--digital", "node_linear_2", "--json")
    assert json.loads(again) == report
    words = ["--input", images, "--physics", "full", "-o", "out.npz"]
    done("run", "digits-mlp", *flag, *words)
    with np.load("out.npz") as written:
        wanted = pcmc.Session(loaded, "full").run(None, {"x": np.load(images)["x"]})[0]
        assert np.array_equal(written["logits"], wanted)
    words = [*flag, "--data", images, "--by-layer", "--seeds", "1", "--json"]
    compared = json.loads(done("compare", "digits-mlp", *words))
    assert [one["layer"] for one in compared["layers"]] == ["node_linear_1"]


def test_a_wrong_layer_to_keep_digital_is_one_line(refused):
    message = refused("compile", "digits-mlp", "--digital", "node_linear,nope")
    assert message.endswith(
        "--digital nope: there is no such layer; layers are node_linear, node_linear_1, node_linear_2"
    )
    assert "no name empty" in refused("compile", "digits-mlp", "--digital", "node_linear,")
    assert "has no constant matrix" in refused(
        "compile", "digits-mlp", "--digital", "node_linear,node_linear_1,node_linear_2"
    )


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
    text = done("chips", "show", "nature2018")
    assert text == done("chips", "nature2018")
    assert "[tile]" in text
    assert "rows = 513" in text
    (tmp_chdir / "mine.toml").write_text('extends = "nature2018"\nname = "mine"\n')
    assert "name: mine" in done("chips", "show", "mine.toml")
    assert json.loads(done("chips", "show", "mine.toml", "--json"))["name"] == "mine"


def test_chips_show_needs_one_name(run, refused):
    for words in (["show"], ["show", "nature2018", "nature2018"], ["nature2018", "nature2018"]):
        result = run("chips", *words)
        assert result.code == 2
        assert "pcmc chips show CHIP shows one" in " ".join(result.err.replace("│", " ").split())
    assert "no chip of that name" in refused("chips", "show", "nature2o18")


def test_run_and_compare_show_what_clipped(done, images):
    text = done("run", "digits-mlp", "--input", images, "--physics", "adc")
    assert "none of 4,040 conversions clipped" in text
    facts = json.loads(done("run", "digits-mlp", "--input", images, "--physics", "adc", "--json"))
    session = pcmc.Session(program(), "adc")
    session.run(None, {"x": np.load(images)["x"]})
    assert facts["saturation"] == {
        name: {"conversions": one.conversions, "clipped": one.clipped}
        for name, one in session.saturation.items()
    }
    assert json.loads(done("run", "digits-mlp", "--input", images, "--json"))["saturation"] == {}
    assert "conversions clipped" not in done("run", "digits-mlp", "--input", images)
    words = ["compare", "digits-mlp", "--data", images, "--seeds", "2", "--physics", "adc"]
    assert "none of 8,080 conversions clipped" in done(*words)


def test_the_share_that_clipped_is_said_with_where_most_did():
    counts = {
        "a": {"conversions": 1000, "clipped": 1},
        "b": {"conversions": 500, "clipped": 14},
        "c": {"conversions": 0, "clipped": 0},
    }
    assert text_of.clipped(counts) == "0.01 of 1,500 conversions clipped; most in b: 0.028"


def test_models_lists_the_shipped_ones(done):
    text = done("models")
    assert all(name in text for name in zoo.names())
    assert json.loads(done("models", "--json")) == zoo.describe()


def test_version(done):
    assert done("--version") == f"pcmc {pcmc.__version__}\n"


COMMANDS = {
    "compile": (
        "MODEL",
        "--chip",
        "--shape",
        "--freeze",
        "--digital",
        "--output",
        "--graph",
        "--check",
        "--calibrate",
        "--calibrate-what",
        "--threads",
        "--json",
    ),
    "run": (
        "PROGRAM",
        "--input",
        "--output",
        "--chip",
        "--shape",
        "--freeze",
        "--digital",
        "--physics",
        "--seed",
        "--threads",
        "--calibrate",
        "--calibrate-what",
        "--json",
    ),
    "compare": (
        "MODEL",
        "--data",
        "--seeds",
        "--metric",
        "--ablate",
        "--by-layer",
        "--calibrate",
        "--calibrate-what",
        "--at",
        "--compensation",
        "--chip",
        "--shape",
        "--freeze",
        "--digital",
        "--physics",
        "--seed",
        "--threads",
        "--output",
        "--json",
    ),
    "report": ("PROGRAM", "--chip", "--shape", "--freeze", "--digital", "--output", "--json"),
    "show": ("PROGRAM", "--chip", "--shape", "--digital", "--json"),
    "where": ("PROGRAM", "LAYER", "--chip", "--shape", "--digital", "--json"),
    "export": ("PROGRAM", "--output", "--chip", "--shape", "--freeze", "--digital", "--json"),
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


@pytest.mark.parametrize(
    "flag",
    [
        ("--chip", "nature2018"),
        ("--shape", "x=1,1,8,8"),
        ("--freeze", "x=1"),
        ("--digital", "node_linear"),
    ],
)
def test_a_flag_of_the_compiler_on_a_compiled_program_is_refused(run, done, flag):
    done("compile", "digits-mlp", "-o", "m.pcmc")
    result = run("compare", "m.pcmc", *flag)
    assert result.code == 2
    why = "is for models; this program is compiled already: compile the model again"
    assert result.err == f"pcmc: m.pcmc: {flag[0]} {why}\n"
