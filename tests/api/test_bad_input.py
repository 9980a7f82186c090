"""Whatever a user or a stranger hands in: exit code 2 and one line that names the file, node or field."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import pcmc
from pcmc.models import zoo


def save(model: onnx.ModelProto, name: str = "mine.onnx") -> str:
    Path(name).write_bytes(model.SerializeToString())
    return name


def program_file(name: str = "mine.pcmc") -> str:
    pcmc.compile(builders.mlp([6, 4])).save(name)
    return name


# Models that are none.


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"PK\x03\x04", b"\x00" * 50, b"\x89PNG\r\n\x1a\n" * 9, b"{}", bytes(range(256))]
)
def test_a_file_that_is_not_onnx(refused, data):
    Path("mine.onnx").write_bytes(data)
    assert refused("compile", "mine.onnx").startswith("mine.onnx: is not an ONNX model")


def test_a_truncated_model(refused):
    data = zoo.path("digits-mlp").read_bytes()
    for length in range(0, len(data), len(data) // 15):
        Path("mine.onnx").write_bytes(data[:length])
        assert "mine.onnx: " in refused("compile", "mine.onnx")


def test_a_model_that_is_not_there(refused):
    assert refused("compile", "none.onnx") == "none.onnx: no such file"
    assert "no shipped model: those are digits-mlp, digits-cnn" in refused("compile", "digits-mpl")
    for folder in (".", "..", ""):
        assert "Is a directory" in refused("compile", folder)
    for command in ("run", "compare", "report", "show"):
        assert refused(command, "none.onnx") == "none.onnx: no such file"
        assert refused(command, "none.pcmc") == "none.pcmc: no such file"


def external(location: str, **entries: str) -> onnx.ModelProto:
    """A dense layer whose weights lie in a file."""
    model = builders.mlp([6, 4])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    return model


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("weights.bin", "which is missing: put that file beside the model"),
        ("../weights.bin", "outside the model's folder"),
        ("/etc/hostname", "outside the model's folder"),
        ("link.bin", "outside the model's folder"),
        ("", "outside"),
        ("sub/../../weights.bin", "outside the model's folder"),
        (".", "which is missing"),
        ("short.bin", "it is truncated"),
    ],
)
def test_external_data_that_is_missing_or_outside(refused, tmp_chdir, location, message):
    inner = tmp_chdir / "inner"
    inner.mkdir()
    (tmp_chdir / "weights.bin").write_bytes(bytes(96))
    (inner / "link.bin").symlink_to(tmp_chdir / "weights.bin")
    (inner / "short.bin").write_bytes(bytes(10))
    model = external(location, length="96")
    line = refused("compile", save(model, "inner/mine.onnx"))
    assert line.startswith("mine.onnx: tensor 'w0' keeps its data in")
    assert message in line


@pytest.mark.parametrize(
    "entries", [{"offset": "-1"}, {"offset": "x"}, {"length": "9" * 30}, {"offset": "1", "length": "96"}]
)
def test_external_data_of_a_wrong_place_in_its_file(refused, entries):
    Path("weights.bin").write_bytes(bytes(96))
    assert "tensor 'w0' keeps its data in 'weights.bin'" in refused(
        "compile", save(external("weights.bin", **entries))
    )


def constant_function(tensor: onnx.TensorProto, kind: str) -> onnx.FunctionProto:
    """A function `local.f` that adds a tensor: the value of a Constant, or the default of an attribute."""
    constant = helper.make_node("Constant", [], ["c"])
    value = helper.make_attribute("value", tensor)
    defaults = [value] if kind == "default" else []
    if kind == "default":
        constant.attribute.add(name="value", ref_attr_name="value", type=onnx.AttributeProto.TENSOR)
    else:
        constant.attribute.append(value)
    nodes = [constant, helper.make_node("Add", ["a", "c"], ["b"])]
    function = helper.make_function("local", "f", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])
    function.attribute_proto.extend(defaults)
    return function


@pytest.mark.parametrize("kind", ["constant", "default"])
def test_external_data_inside_a_function_is_no_way_around(refused, tmp_chdir, kind):
    (tmp_chdir / "secret.bin").write_bytes(bytes(16))
    (tmp_chdir / "inner").mkdir()
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret.bin")
    model = dense(builders.node("f", ["a"], ["y"], name="call", domain="local"), local=1)
    model.functions.append(constant_function(tensor, kind))
    line = refused("compile", save(model, "inner/mine.onnx"))
    assert "tensor 't' keeps its data in 'secret.bin', which is missing" in line


def test_an_unknown_domain_inside_a_function_is_no_way_around(refused):
    model = dense(builders.node("f", ["a"], ["y"], name="call", domain="local"), local=1, wizards=1)
    magic = helper.make_node("Magic", ["a"], ["b"], name="trick", domain="wizards")
    imports = [helper.make_opsetid("wizards", 1)]
    model.functions.append(helper.make_function("local", "f", ["a"], ["b"], [magic], imports))
    assert "node 'trick' (wizards:Magic)" in refused("compile", save(model))


# Models that can't be mapped.


def dense(*nodes: onnx.NodeProto, constants: dict[str, Any] | None = None, **domains: int) -> onnx.ModelProto:
    """A dense layer `dense` x -> a, then `nodes` that make y of a."""
    first = builders.node("MatMul", ["x", "w"], ["a"], name="dense")
    every = {"w": builders.weights(6, 4), **(constants or {})}
    return builders.model([first, *nodes], {"x": ["N", 6]}, {"y": [None, None]}, every, domains=domains)


def test_an_operator_of_an_unknown_domain(refused):
    model = dense(builders.node("Magic", ["a"], ["y"], name="trick", domain="wizards"), wizards=1)
    assert "mine.onnx: node 'trick' (wizards:Magic)" in refused("compile", save(model))


def test_an_operator_that_does_not_exist(refused):
    model = dense(builders.node("Magic", ["a"], ["y"], name="trick"))
    assert "mine.onnx: is not a valid ONNX model: No Op registered for Magic" in refused(
        "compile", save(model)
    )


def test_constant_weights_that_are_not_mapped(refused):
    filters = {"filters": builders.weights(1, 2, 3, 3)}
    nodes = [builders.node("ConvTranspose", ["x", "filters"], ["y"], name="up")]
    model = builders.model(nodes, {"x": ["N", 1, 4, 4]}, {"y": [None] * 4}, filters)
    assert "node 'up' (ConvTranspose): its constant weights 'filters' [1, 2, 3, 3]" in refused(
        "compile", save(model)
    )


def test_no_matrix_at_all(refused):
    model = builders.model([builders.node("Relu", ["x"], ["y"])], {"x": ["N", 6]}, {"y": ["N", 6]})
    assert refused("compile", save(model)).startswith("mine.onnx: has no constant matrix")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(refused, value):
    weights = builders.weights(6, 4)
    weights[2, 1] = value
    line = refused("compile", save(dense(builders.node("Relu", ["a"], ["y"]), constants={"w": weights})))
    assert "mine.onnx: node 'dense' (MatMul): 1 of the 24 weights in 'w' are NaN or infinite" in line


def test_an_open_dimension_that_matters(refused):
    save(builders.conv((2, 1, 3, 3), ("H", "W")))
    assert "give them with --shape x=1,1,N,N" in refused("compile", "mine.onnx")
    for shape, message in (
        ("z=1", "there is no such input; it has x"),
        ("x=1,1,8", "has 4 dimensions, 3 were given"),
        ("x=1,2,8,8", "is 1 in the model"),
        ("x=1,1,2,2", "does not fit an image of 2 x 2"),
    ):
        assert message in refused("compile", "mine.onnx", "--shape", shape)
    assert not Path("mine.pcmc").exists()


def test_a_model_larger_than_the_board(refused):
    Path("mine.toml").write_text(
        'extends = "nature2018"\nname = "mine"\n[board]\nmax_chips = 1\n[tile]\nrows = 20\ncols = 10\n'
    )
    line = refused("compile", "digits-mlp", "--chip", "mine.toml")
    assert "the model needs" in line
    assert "chips of mine" in line
    assert "max_chips" in line


def test_a_later_opset(refused):
    model = builders.mlp([6, 4])
    model.opset_import[0].version = 999
    assert "mine.onnx: has opset 999" in refused("compile", save(model))


def test_constants_that_do_not_fit_their_operation(refused):
    """What onnx's checker lets pass: vectors for matrices, biases of other sizes, inputs of no known type."""
    vector, bias, element = builders.mlp([6, 4]), builders.mlp([6, 4]), builders.mlp([6, 4])
    del vector.graph.initializer[0].dims[1]
    vector.graph.initializer[0].dims[0] = 24
    bias.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(builders.weights(3), "b0"))
    element.graph.input[0].type.tensor_type.elem_type = 99
    convolution = builders.conv((2, 1, 3, 3), (5, 5), strides=[1])
    assert "node 'dense0' (Gemm): its attributes and constants do not fit" in refused("compile", save(vector))
    assert "node 'dense0' (Gemm): its attributes and constants do not fit" in refused("compile", save(bias))
    assert "node 'conv' (Conv): its attributes and constants do not fit" in refused(
        "compile", save(convolution)
    )
    assert "input 'x' is of an unknown type, 99" in refused("compile", save(element))


def test_names_that_would_write_on_the_terminal(refused):
    model = dense(builders.node("Magic", ["a"], ["y"], name="\x1b[2J\nevil", domain="wizards"), wizards=1)
    line = refused("compile", save(model))
    assert "\\x1b[2J\\nevil" in line
    assert line.isprintable()


# Chips.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "nature2018"\nname = "mine"\n[tile]\nrows = 0\n', "[tile] rows = 0"),
        ('extends = "nature2018"\nname = "mine"\n[tile]\nrows = "many"\n', "[tile] rows"),
        (
            'extends = "nature2018"\nname = "mine"\n[tile]\nrow = 10\n',
            "[tile] row: unknown field; did you mean rows?",
        ),
        ('extends = "nature2018"\nname = "mine"\n[adc]\nbits = nan\n', "[adc] bits"),
        ('name = "mine"\n', "missing"),
        ("not toml", "not valid TOML"),
        ("", "missing"),
        ('extends = "nature2017"\nname = "x"\n', "nature2017"),
    ],
)
def test_a_chip_file_with_a_wrong_or_missing_field(refused, text, message):
    Path("mine.toml").write_text(text)
    for words in (["compile", "digits-mlp", "--chip", "mine.toml"], ["chips", "mine.toml"]):
        line = refused(*words)
        assert message in line
        assert "mine.toml" in line or "nature2017" in line


def test_an_unknown_chip(refused):
    assert "did you mean nature2018?" in refused("compile", "digits-mlp", "--chip", "nature2019")
    assert "nowhere.toml: no such file" in refused("report", "digits-mlp", "--chip", "nowhere.toml")
    assert "not a regular file" in refused("chips", ".")


# Words on the command line.


@pytest.mark.parametrize(
    "shape",
    [
        "x",
        "=1,2",
        "x=",
        "x=1,",
        "x=a",
        "x=1.5",
        "x=0,1",
        "x=-1,3",
        "x=1 2",
        "x=" + "9" * 30,
        "x=" + "9" * 5000,
        "x=1,,2",
        "x=∞",
    ],
)
def test_a_malformed_shape(refused, shape):
    assert "should be NAME=1,3,32,32" in refused("compile", "digits-mlp", "--shape", shape)


@pytest.mark.parametrize(
    "freeze", ["x", "=1", "x=", "x=a", "x={}", 'x="a"', "x=null", "x=[", "x=1,2", "x=" + "[" * 5000]
)
def test_a_malformed_frozen_value(refused, freeze):
    assert "should be NAME=16000" in refused("compile", "digits-mlp", "--freeze", freeze)


@pytest.mark.parametrize(
    "freeze", ["z=1", "x=1", "x=[1,[2]]", 'x=["a"]', "x=[[1]]", "x=1" + "0" * 400, "x=[1" + "0" * 400 + "]"]
)
def test_a_frozen_value_that_does_not_fit(refused, freeze):
    assert "digits-mlp.onnx: --freeze" in refused("compile", "digits-mlp", "--freeze", freeze)


def test_a_frozen_integer_beyond_its_type(refused):
    nodes = [
        builders.node("Cast", ["n"], ["f"], to=1),
        builders.node("MatMul", ["x", "w"], ["a"]),
        builders.node("Add", ["a", "f"], ["y"]),
    ]
    inputs = {"x": ["N", 6], "n": ([1], TensorProto.INT64)}
    save(builders.model(nodes, inputs, {"y": ["N", 4]}, {"w": builders.weights(6, 4)}))
    assert "--freeze n" in refused("compile", "mine.onnx", "--freeze", "n=[1" + "0" * 30 + "]")


def test_an_unknown_physics_metric_layer_or_number_of_threads(refused):
    np.savez("in.npz", x=np.zeros((1, 1, 8, 8), np.float32))
    assert "no effect of the name 'dacc'" in refused(
        "run", "digits-mlp", "--input", "in.npz", "--physics", "dacc"
    )
    assert "ideal must stand alone" in refused("compare", "digits-mlp", "--physics", "ideal,adc")
    assert "metric 'f1' is unknown" in refused("compare", "digits-mlp", "--metric", "f1")
    assert "there is no layer 'fc' in digits-mlp.onnx; its matrices are" in refused(
        "where", "digits-mlp", "fc"
    )
    assert "threads = -2" in refused("run", "digits-mlp", "--input", "in.npz", "--threads", "-2")
    assert "threads = -2" in refused("compare", "digits-mlp", "--threads", "-2")
    assert "--graph a.png: the name should end in" in refused("compile", "digits-mlp", "--graph", "a.png")
    assert "needs --input FILE.npz" in refused("run", "digits-mlp")
    program_file()
    assert "x" in refused("report", "mine.pcmc", "--shape", "x=1,7")
    assert "there is no input 'z'" in refused("report", "mine.pcmc", "--shape", "z=1,7")


@pytest.mark.parametrize(
    "words",
    [
        ["bad"],
        ["compile"],
        ["compile", "a", "b"],
        ["compile", "digits-mlp", "--bad"],
        ["compare", "digits-mlp", "--seeds", "0"],
        ["compare", "digits-mlp", "--seeds", "x"],
        ["run", "digits-mlp", "--seed", "1.5"],
        ["where", "digits-mlp"],
        ["chips", "a", "b"],
    ],
)
def test_words_that_the_command_does_not_know_show_how_it_is_used(run, words):
    result = run(*words)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("Usage: ")
    assert "Traceback" not in result.err


# Data.


def good() -> np.ndarray:
    return np.zeros((2, 1, 8, 8), np.float32)


ARRAYS = {
    "wrong type": ({"x": good().astype(np.float64)}, "'x' is float64, the model takes float32"),
    "wrong shape": (
        {"x": good()[:, :, :7]},
        "'x' has shape [2, 1, 7, 8], the model takes ['batch', 1, 8, 8]",
    ),
    "wrong rank": ({"x": good()[0, 0]}, "'x' has shape [8, 8]"),
    "wrong names": ({"a": good(), "b": good()}, "'x' is missing; given was"),
    "one too many": ({"x": good(), "z": good()}, "there is no input 'z'"),
    "nothing": ({}, "'x' is missing"),
    "words": ({"x": np.array(["a"])}, "'x' is <U1"),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_input_arrays_that_do_not_fit(refused, kind):
    arrays, message = ARRAYS[kind]
    np.savez("in.npz", **arrays)
    assert message in refused("run", "digits-mlp", "--input", "in.npz")
    if kind != "one too many":  # what compare does not need it leaves alone
        assert message.split(";")[0] in refused("compare", "digits-mlp", "--data", "in.npz", "--seeds", "1")


def test_labels_that_do_not_fit(refused):
    for labels, message in (
        (np.zeros(3), "[2, 3]"),
        (np.eye(10)[:2], "labels have shape [2, 10]"),
        (np.float32(1), "labels have shape []"),
    ):
        np.savez("in.npz", x=good(), y=labels)
        assert message in refused("compare", "digits-mlp", "--data", "in.npz", "--seeds", "1")


def hostile_npy(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"


def test_npz_files_that_are_none(refused):
    import zipfile

    np.save("one.npy", good())
    np.savez("objects.npz", x=np.array([{"a": 1}], dtype=object))
    Path("text.npz").write_text("hello")
    Path("empty.npz").write_bytes(b"")
    Path("pickle.npz").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    np.savez("cut.npz", x=good())
    Path("cut.npz").write_bytes(Path("cut.npz").read_bytes()[:-40])
    for name, header in (
        ("huge", "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,), }"),
        ("code", "__import__('os')"),
    ):
        with zipfile.ZipFile(f"{name}.npz", "w") as archive:
            archive.writestr("x.npy", hostile_npy(header))
    for name in ("objects", "text", "empty", "pickle", "cut", "huge", "code"):
        line = refused("run", "digits-mlp", "--input", f"{name}.npz")
        assert line.startswith(f"{name}.npz: is not an .npz file of plain arrays")
    assert "one.npy: holds one array; save it with a name" in refused(
        "run", "digits-mlp", "--input", "one.npy"
    )
    assert refused("run", "digits-mlp", "--input", "none.npz") == "none.npz: no such file"
    assert "is not an .npz file" in refused("compare", "digits-mlp", "--data", ".")


# Programs.


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "text", "folder", "model", "schema"])
@pytest.mark.parametrize(
    "words", [["report"], ["show"], ["where", "dense0"], ["run", "--input", "in.npz"], ["compare"]]
)
def test_a_damaged_program_file(refused, damage, words):
    np.savez("in.npz", x=np.zeros((1, 6), np.float32))
    path = Path(program_file("a.pcmc"))
    data = path.read_bytes()
    middle = data.index(b"NUMPY") + 200
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    contents = {
        "empty": b"",
        "cut": data[:-10],
        "flipped": flipped,
        "text": b"hello",
        "model": zoo.path("digits-mlp").read_bytes(),
        "schema": data.replace(b'"schema": 1', b'"schema": 7'),
    }
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(contents[damage])
    assert "a.pcmc: " in refused(words[0], "a.pcmc", *words[1:])


# Outputs.


def test_outputs_that_can_not_be_written(refused, tmp_chdir):
    np.savez("in.npz", x=good())
    Path("folder").mkdir()
    os.mkfifo("pipe")
    commands = {
        "compile": ["compile", "digits-mlp"],
        "run": ["run", "digits-mlp", "--input", "in.npz"],
        "compare": ["compare", "digits-mlp", "--data", "in.npz", "--seeds", "1"],
        "report": ["report", "digits-mlp"],
    }
    for words in commands.values():
        assert refused(*words, "-o", "none/out").startswith("none/out: can't be written: No such file")
        assert refused(*words, "-o", "folder") == "folder: is a folder: give the name of a file"
        assert refused(*words, "-o", "pipe").startswith("pipe: is not a regular file")
        assert "can't be written: File name too long" in refused(*words, "-o", "x" * 300)
    assert refused("compile", "digits-mlp", "--graph", "none/a.dot").startswith(
        "none/a.dot: can't be written"
    )
    assert sorted(path.name for path in tmp_chdir.iterdir()) == ["folder", "in.npz", "pipe"]


def test_a_mistake_leaves_the_old_output_alone(refused):
    Path("out.pcmc").write_bytes(b"old")
    refused("compile", "none.onnx", "-o", "out.pcmc")
    save(
        dense(
            builders.node("Relu", ["a"], ["y"]), constants={"w": builders.weights(6, 4) * np.float32(np.nan)}
        )
    )
    refused("compile", "mine.onnx", "-o", "out.pcmc")
    assert Path("out.pcmc").read_bytes() == b"old"


# As processes of their own.


@pytest.mark.slow
def test_mistakes_in_a_process_of_its_own_are_one_line_and_exit_code_2(tmp_chdir):
    Path("broken.onnx").write_bytes(b"hello")
    Path("broken.pcmc").write_bytes(b"hello")
    Path("broken.npz").write_bytes(b"hello")
    for words, name in (
        (["compile", "broken.onnx"], "broken.onnx"),
        (["report", "broken.pcmc"], "broken.pcmc"),
        (["run", "digits-mlp", "--input", "broken.npz"], "broken.npz"),
        (["compile", "digits-mlp", "-o", "none/a"], "none/a"),
        (["report", "digits-mlp", "--chip", "none"], "none"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pcmc", *words], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"pcmc: {name}: ")
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_json_of_every_command_stays_json_for_a_hostile_name(done):
    """A stranger's names reach the output quoted, in JSON and in Graphviz."""
    model = builders.mlp([6, 4])
    model.graph.node[0].name = 'a"b\\\n</x>\x1b'
    save(model)
    assert json.loads(done("show", "mine.onnx", "--json"))["banks"][0]["name"] == 'a"b\\\n</x>\x1b'
    done("compile", "mine.onnx", "--graph", "a.dot")
    lines = Path("a.dot").read_text().splitlines()
    assert any('"a\\"b\\\\\\n</x>' in line for line in lines)
