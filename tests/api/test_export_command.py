"""`pcmc export`: what it writes, what it says, what it refuses."""

import json
from pathlib import Path

import builders
import numpy as np
import onnx
from exporting import retrained

import pcmc
from pcmc.models import zoo
from pcmc.runtime.export import trained_model, with_weights


def test_export_of_a_program_as_compiled_is_the_original(done):
    done("compile", "digits-mlp")
    text = done("export", "digits-mlp.pcmc", "-o", "again.onnx")
    assert text == "all weights are as compiled: the model is the original\nwritten to again.onnx\n"
    assert Path("again.onnx").read_bytes() == Path(zoo.path("digits-mlp")).read_bytes()


def test_export_takes_a_model_too(done):
    done("export", "digits-mlp", "-o", "again.onnx", "--chip", "nature2018", "--digital", "node_linear_1")
    assert Path("again.onnx").read_bytes() == Path(zoo.path("digits-mlp")).read_bytes()


def test_export_says_what_became_different(done):
    trained = retrained(pcmc.compile(builders.mlp([20, 9, 4]), builders.chip(24, 7)))
    trained.save("net.pcmc")
    text = done("export", "net.pcmc", "-o", "net.onnx")
    assert text == "4 tensors with new values, 0 new tensors\nwritten to net.onnx\n"
    assert Path("net.onnx").read_bytes() == trained_model(trained).SerializeToString()
    facts = json.loads(done("export", "net.pcmc", "-o", "net.onnx", "--json"))
    assert facts == {
        "changed": ["w0", "b0", "w1", "b1"],
        "added": [],
        "clipped": {},
        "written": "net.onnx",
    }


def test_export_says_what_was_clipped(done):
    arrays = {"w": np.ones((20, 9), np.float16)}
    nodes = [
        builders.node("Cast", ["w"], ["m"], to=1),
        builders.node("MatMul", ["x", "m"], ["y"], name="product"),
    ]
    proto = builders.model(nodes, {"x": ["N", 20]}, {"y": ["N", 9]}, arrays)
    program = pcmc.compile(proto)
    matrix, _ = program.banks["product"].matrix()
    matrix[0] = 1e6
    with_weights(program, {"product": (matrix, None)}).save("net.pcmc")
    text = done("export", "net.pcmc", "-o", "net.onnx")
    assert "9 values did not fit the type that holds them and were clipped, most in 'w' (9)" in text
    assert onnx.numpy_helper.to_array(onnx.load("net.onnx").graph.initializer[0]).max() == 65504


def test_export_asks_where_to(refused):
    assert refused("export", "digits-mlp") == "pcmc export needs -o FILE.onnx: the file to write"


def test_export_to_a_folder_that_is_missing_is_one_line(refused):
    line = refused("export", "digits-mlp", "-o", "no/a.onnx")
    assert line == "no/a.onnx: can't be written: No such file or directory"


def test_export_of_what_is_no_program_is_one_line(refused):
    Path("bad.pcmc").write_bytes(b"no zip")
    assert refused("export", "bad.pcmc", "-o", "a.onnx").startswith("bad.pcmc: is not a pcmc program file")
    assert not Path("a.onnx").exists()
