"""A model is read whole, or refused with one clear error; nothing outside of its folder is touched."""

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights
from onnx import TensorProto, helper

import pcmc
from pcmc.compiler import onnx_file
from pcmc.compiler.onnx_file import read_model
from pcmc.errors import ModelError
from pcmc.runtime.onnx_walk import bodies_of, nodes_of, tensors_of


def refused(source, *parts):
    with pytest.raises(ModelError) as error:
        read_model(source)
    for part in parts:
        assert part in str(error.value)


def external(folder, location="net.data", **entries):
    """A saved model whose weights lie in another file, with the given entries in its reference."""
    proto = builders.mlp([6, 5], bias=False)
    (tensor,) = proto.graph.initializer
    (folder / "net.data").write_bytes(b"12345678" + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "8", **entries}.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_data_beside_the_model_is_read(tmp_path):
    model, origin = read_model(external(tmp_path))
    assert origin == "net.onnx"
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), weights(6, 5))


def test_external_data_with_a_length_is_read(tmp_path):
    model, _ = read_model(external(tmp_path, length=str(4 * 30)))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), weights(6, 5))


def test_external_data_runs_as_onnxruntime_runs_it(tmp_path):
    path = external(tmp_path)
    program = pcmc.compile(path, check=True)
    inputs = builders.feeds(builders.mlp([6, 5], bias=False))
    builders.assert_close(
        builders.run(program, inputs), builders.reference(builders.mlp([6, 5], bias=False), inputs)
    )


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ({"location": "../net.data"}, "outside the model's folder"),
        ({"location": "/etc/passwd"}, "outside the model's folder"),
        ({"location": ""}, "outside the model's folder"),
        ({"location": "gone.data"}, "missing: put that file beside"),
        ({"offset": "9"}, "does not fit its type and dimensions"),
        ({"length": "500"}, "truncated"),
        ({"offset": "-1"}, "truncated"),
        ({"offset": "x"}, "not a whole number"),
        ({"offset": "9999"}, "truncated"),
        ({"location": "."}, ""),
    ],
)
def test_bad_external_data_is_refused(tmp_path, entries, part):
    path = external(tmp_path, **entries)
    with pytest.raises(ModelError, match=r"net\.onnx: ") as error:
        pcmc.compile(path)
    assert part in str(error.value)


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    path = external(inside)
    (tmp_path / "secret").write_bytes(bytes(200))
    (inside / "net.data").unlink()
    (inside / "net.data").symlink_to(tmp_path / "secret")
    refused(path, "outside the model's folder")


def test_external_data_needs_a_file(tmp_path):
    data = external(tmp_path).read_bytes()
    refused(data, "the model was not given as a file: give its path")


def test_the_given_proto_is_copied():
    proto = builders.mlp([6, 5])
    model, origin = read_model(proto)
    assert model is not proto
    assert model.SerializeToString() == proto.SerializeToString()
    assert origin == "net"


def test_a_file_that_is_not_there(tmp_path):
    refused(tmp_path / "gone.onnx", "gone.onnx: no such file")


def test_a_folder_is_not_a_model(tmp_path):
    refused(tmp_path, "can't be read")


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"PK\x03\x04" * 20, bytes(range(256))])
def test_bytes_that_are_no_model(data, tmp_path):
    refused(data, "is not an ONNX model")
    (tmp_path / "bad.onnx").write_bytes(data)
    refused(tmp_path / "bad.onnx", "bad.onnx: is not an ONNX model")


def test_every_truncation_is_one_clear_error():
    data = builders.mlp([6, 5, 4]).SerializeToString()
    for end in range(0, len(data) - 1, 7):
        with pytest.raises(ModelError):
            pcmc.compile(data[:end])


def test_every_flipped_byte_is_compiled_or_refused():
    """No crash, whatever the damage: a Program or a PcmcError."""
    data = bytearray(builders.mlp([3, 2]).SerializeToString())
    outcomes = set()
    for index in range(0, len(data), 5):
        damaged = bytearray(data)
        damaged[index] ^= 0x55
        try:
            pcmc.compile(bytes(damaged))
            outcomes.add("compiled")
        except pcmc.PcmcError:
            outcomes.add("refused")
    assert outcomes == {"compiled", "refused"}


def test_a_later_opset_than_the_installed_onnx_knows():
    proto = builders.mlp([6, 5])
    proto.opset_import[0].version = 99
    refused(proto, "has opset 99, the installed onnx knows up to", "update onnx")


@pytest.mark.parametrize(
    ("break_it", "part"),
    [
        (lambda graph: graph.node[0].input.__setitem__(0, "nobody"), "nobody"),
        (lambda graph: graph.node[0].input.pop(), "not a valid ONNX model"),
        (lambda graph: graph.node.append(graph.node[0]), "not a valid ONNX model"),
        (lambda graph: graph.node[0].__setattr__("op_type", "Gem"), "Gem"),
    ],
)
def test_an_invalid_graph_is_refused_with_what_the_checker_says(break_it, part):
    proto = builders.mlp([6, 5], bias=False)
    break_it(proto.graph)
    refused(proto, "net: is not a valid ONNX model", part)


def test_a_tensor_whose_data_does_not_fit_is_refused_by_name():
    proto = builders.mlp([6, 5], bias=False)
    for break_it in (
        lambda t: t.__setattr__("data_type", 77),
        lambda t: t.__setattr__("raw_data", t.raw_data[:-4]),
        lambda t: t.dims.append(2),
    ):
        broken = onnx.ModelProto()
        broken.CopyFrom(proto)
        break_it(broken.graph.initializer[0])
        refused(broken, "net: tensor 'w0'", "its data does not fit its type and dimensions")


def test_an_input_or_output_without_a_shape_is_taken_as_onnxruntime_takes_it():
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    program = builders.compiled_like_onnxruntime(
        builders.model(nodes, {"x": ["N", 6]}, {"y": None}, {"w": weights(6, 5)})
    )
    assert program.outputs[0].name == "y"
    model, _ = read_model(builders.model(nodes, {"x": ["N", 6]}, {"y": None}, {"w": weights(6, 5)}))
    assert not model.graph.output[0].type.tensor_type.HasField("shape")


def test_the_domains_that_onnxruntime_knows_are_taken():
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Gelu", ["h"], ["y"], domain="com.microsoft")]
    proto = builders.model(
        nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)}, domains={"com.microsoft": 1}
    )
    builders.compiled_like_onnxruntime(proto)


def test_a_function_of_the_model_brings_its_own_domain():
    function = helper.make_function(
        "org.example",
        "Twice",
        ["a"],
        ["b"],
        [node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", builders.OPSET)],
    )
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Twice", ["h"], ["y"], domain="org.example")]
    proto = builders.model(
        nodes, {"x": ["N", 6]}, {"y": ["N", 5]}, {"w": weights(6, 5)}, domains={"org.example": 1}
    )
    proto.functions.append(function)
    builders.compiled_like_onnxruntime(proto)


def test_nested_nodes_and_tensors_are_found():
    inner = builders.body(
        [node("Add", ["h", "c"], ["t"], name="inner")], {"t": [4]}, constants={"c": weights(4)}
    )
    branch = node("If", ["flag"], ["y"], name="if", then_branch=inner, else_branch=inner)
    constant = node("Constant", [], ["k"], name="constant", value=helper.make_tensor("k", 1, [1], [1.0]))
    proto = builders.model(
        [constant, branch], {"h": [4], "flag": ([], TensorProto.BOOL)}, {"y": [4]}, {"w": weights(4)}
    )
    assert [one.name for one in nodes_of(proto.graph)] == ["constant", "if", "inner", "inner"]
    assert sorted(tensor.name for tensor in tensors_of(proto.graph)) == ["c", "c", "k", "w"]
    assert set(bodies_of(branch)) == {"then_branch", "else_branch"}


class Huge:
    """What protobuf does where a model has more than 2 GiB: it can't even say how large it is."""

    def ByteSize(self) -> int:  # noqa: N802  # protobuf's name
        from google.protobuf.message import EncodeError

        raise EncodeError("Failed to serialize proto")


def test_models_beyond_the_limit_of_protobuf_are_left_to_our_own_checks():
    assert not onnx_file._fits_checker(Huge())
    assert onnx_file._fits_checker(builders.mlp((4, 3)))
