"""Trained weights come back in the user's own graph, and onnxruntime makes of it what the program makes."""

import errno
import os
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights
from exporting import constants, exports_what_it_computes, retrained
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import pcmc
from pcmc.errors import DataError, OutputError, ProgramError
from pcmc.models import zoo
from pcmc.runtime import export as export_module
from pcmc.runtime.export import export_onnx, exported, trained_model, with_weights

# Matrices of every kind.


@pytest.mark.parametrize("bias", ["row", "one", "matrix", "none"])
@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_with_its_factors(bias, transposed):
    shape = (9, 30) if transposed else (30, 9)
    arrays = {"w": weights(*shape)}
    arrays |= {
        "row": {"c": weights(9, seed=2)},
        "one": {"c": weights(1, seed=2)},
        "matrix": {"c": weights(1, 9, seed=2)},
        "none": {},
    }[bias]
    nodes = [node("Gemm", ["x", *arrays], ["y"], name="fc", alpha=0.5, beta=3.0, transB=transposed)]
    proto = builders.model(nodes, {"x": ["N", 30]}, {"y": ["N", 9]}, arrays)
    exports_what_it_computes(proto, keeps_graph=bias != "one")


@pytest.mark.parametrize("attributes", [{"alpha": 0.0}, {"beta": 0.0}, {"alpha": 0.0, "transA": 1}])
def test_a_factor_of_zero_that_hides_the_weights_becomes_one(attributes):
    arrays = {"w": weights(30, 9), "c": weights(9, seed=2)}
    nodes = [node("Gemm", ["x", *arrays], ["y"], name="fc", **attributes)]
    shape = [30, 5] if "transA" in attributes else [5, 30]
    proto = builders.model(nodes, {"x": shape}, {"y": [5, 9]}, arrays)
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert not result.added
    assert [a.f for a in result.model.graph.node[0].attribute if a.name in ("alpha", "beta")] == [1.0]


@pytest.mark.parametrize(
    ("constant", "attributes", "addend"),
    [
        ("b", {"transA": 1}, (9,)),
        ("b", {"transA": 1, "transB": 1, "alpha": 0.5}, (1, 9)),
        ("b", {"transA": 1}, None),
        ("b", {"alpha": 2.0, "beta": 0.5}, (30, 9)),
        ("a", {"alpha": 0.5}, (9, 1)),
        ("a", {"transA": 1, "transB": 1}, (9, 30)),
        ("a", {"transA": 1, "alpha": 3.0}, None),
    ],
)
def test_a_gemm_that_the_compiler_splits_comes_back_whole(constant, attributes, addend):
    rows, cols = 20, 9
    shape = {"b": (rows, cols), "a": (cols, rows)}[constant]
    flag = "transB" if constant == "b" else "transA"
    weight = weights(*(shape[::-1] if attributes.get(flag) else shape))
    other: list[Any] = {"b": [30, rows], "a": [rows, 30]}[constant]
    if attributes.get("transA" if constant == "b" else "transB"):
        other = other[::-1]
    inputs = ["x", "w"] if constant == "b" else ["w", "x"]
    arrays = {"w": weight} | ({"c": weights(*addend, seed=3)} if addend else {})
    nodes = [node("Gemm", inputs + (["c"] if addend else []), ["y"], name="fc", **attributes)]
    out = [30, cols] if constant == "b" else [cols, 30]
    exports_what_it_computes(builders.model(nodes, {"x": other}, {"y": out}, arrays))


@pytest.mark.parametrize(
    ("shape", "side"), [((30, 9), "right"), ((1, 1, 30, 9), "right"), ((30,), "right"), ((9, 30), "left")]
)
def test_matmul_from_both_sides(shape, side):
    x: list[Any] = [2, 3, 5, 30] if side == "right" else [2, 3, 30, 5]
    nodes = [node("MatMul", ["x", "w"] if side == "right" else ["w", "x"], ["y"], name="product")]
    arrays = {"w": weights(*shape)}
    out = [None] * (3 if len(shape) == 1 else 4)
    exports_what_it_computes(builders.model(nodes, {"x": x}, {"y": out}, arrays))


@pytest.mark.parametrize("bias_row", [True, False])
@pytest.mark.parametrize(
    ("filters", "size", "group"),
    [((9, 4, 3, 3), (6, 6), 1), ((9, 4, 3), (7,), 1), ((6, 2, 3, 3), (5, 5), 3), ((8, 1, 3, 3), (5, 5), 4)],
)
def test_convolutions(filters, size, group, bias_row):
    proto = builders.conv(filters, size, group=group)
    exports_what_it_computes(proto, spec=builders.chip(24, 5, bias_row=bias_row))


# Foldings.


def statistics(channels: int, seed: int) -> dict[str, Any]:
    return {
        "gamma": weights(channels, seed=seed) + 1.5,
        "beta": weights(channels, seed=seed + 1),
        "mean": weights(channels, seed=seed + 2),
        "variance": np.abs(weights(channels, seed=seed + 3)) + 0.5,
    }


FOLLOWERS = ("BatchNormalization", "Add", "SubFrom", "Sub", "Mul", "Div")


def followed(reader: str, chain: list[tuple[str, bool]], *, bias: bool, channels: int = 8) -> onnx.ModelProto:
    """A Conv or MatMul and what follows it; each follower has a constant for each column, or one for all."""
    convolution = reader == "Conv"
    arrays = {"w": weights(channels, 4, 3, 3) if convolution else weights(20, channels)}
    arrays |= {"b": weights(channels, seed=1)} if bias else {}
    nodes = [node(reader, ["x", *arrays], ["t0"], name="reader")]
    for number, (kind, alone) in enumerate(chain):
        source, target = f"t{number}", f"t{number + 1}"
        if kind == "BatchNormalization":
            own = {f"{key}{number}": array for key, array in statistics(channels, 10 * number).items()}
            inputs = [source, *own]
        else:
            shape = (1,) if alone else (channels, 1, 1) if convolution else (channels,)
            own = {f"c{number}": weights(*shape, seed=20 + number) + 1.5}
            inputs = [f"c{number}", source] if kind == "SubFrom" else [source, f"c{number}"]
        arrays |= own
        nodes.append(node(kind.removesuffix("From"), inputs, [target], name=f"follower{number}"))
    nodes.append(node("Sigmoid", [f"t{len(chain)}"], ["y"], name="end"))
    x: list[Any] = ["N", 4, 5, 5] if convolution else ["N", 20]
    return builders.model(nodes, {"x": x}, {"y": [None] * len(x)}, arrays)


@settings(max_examples=12)
@given(
    st.lists(st.tuples(st.sampled_from(FOLLOWERS), st.booleans()), max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_every_chain_of_foldings_is_undone(chain, bias, convolution):
    """Conv with or without a bias, MatMul, and what may be folded into them."""
    if not convolution:  # its columns are the last axis: no BatchNormalization
        chain = [(kind, alone) for kind, alone in chain if kind != "BatchNormalization"]
    proto = followed("Conv" if convolution else "MatMul", chain, bias=bias and convolution)
    exports_what_it_computes(proto, keeps_graph=False, tolerance=2e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_a_folded_batch_normalization_stays_where_it_is(bias):
    proto = followed("Conv", [("BatchNormalization", False)], bias=bias)
    result = exports_what_it_computes(proto)
    assert set(result.changed) == {"w", "b" if bias else "beta0"}


@pytest.mark.parametrize(("reader", "added"), [("Conv", "t0/bias"), ("MatMul", "t0/bias")])
def test_a_bias_that_the_graph_has_nowhere_is_added(reader, added):
    proto = followed(reader, [("Mul", False)], bias=False)
    result = exports_what_it_computes(proto, keeps_graph=False)
    assert result.added == (added,)
    kinds = [made.op_type for made in result.model.graph.node]
    assert kinds == (["Conv", "Mul", "Sigmoid"] if reader == "Conv" else ["MatMul", "Add", "Mul", "Sigmoid"])


def test_one_number_for_all_columns_grows_where_the_columns_now_differ():
    proto = followed("Conv", [("Add", True)], bias=False)
    result = exports_what_it_computes(proto, keeps_graph=False)
    arrays = constants(result.model)
    assert arrays["c0/trained"].shape == (8, 1, 1)
    assert "c0" not in arrays


# Untouched weights.


def test_weights_that_are_as_compiled_keep_their_bits():
    proto = followed("Conv", [("BatchNormalization", False), ("Mul", False)], bias=True)
    program = pcmc.compile(proto, builders.chip(24, 7))
    matrix, bias = program.banks["reader"].matrix()
    assert bias is not None
    matrix[5, 3] += 1.0
    bias[2] += 1.0
    before, after = (
        constants(proto),
        constants(trained_model(with_weights(program, {"reader": (matrix, bias)}))),
    )
    differ = {name: np.argwhere(before[name] != after[name]).tolist() for name in before}
    assert {name: places for name, places in differ.items() if places} == {"w": [[3, 0, 1, 2]], "b": [[2]]}


@pytest.mark.parametrize("name", zoo.names())
def test_a_shipped_model_comes_back_to_the_bit(name, tmp_path):
    pcmc.compile(name).save(tmp_path / "a.pcmc")
    export_onnx(tmp_path / "a.pcmc", tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == Path(zoo.path(name)).read_bytes()


def test_names_metadata_and_documentation_stay():
    proto = builders.mlp([20, 9, 4])
    proto.doc_string, proto.graph.doc_string = "what it is", "the graph"
    proto.producer_name, proto.model_version = "mine", 7
    helper.set_model_props(proto, {"author": "me"})
    proto.graph.node[0].doc_string = "the first"
    proto.graph.initializer[0].doc_string = "weights"
    proto.graph.value_info.append(builders.value_info("a0", ["N", 9]))
    result = exports_what_it_computes(proto)
    assert result.changed == ("w0", "b0", "w1", "b1")
    assert result.model.metadata_props[0].value == "me"


def test_a_saved_program_exports_the_same(tmp_path):
    proto = followed("Conv", [("BatchNormalization", False)], bias=False)
    trained = retrained(pcmc.compile(proto, builders.chip(24, 7)))
    trained.save(tmp_path / "a.pcmc")
    again = trained_model(pcmc.load(tmp_path / "a.pcmc"))
    assert again.SerializeToString() == trained_model(trained).SerializeToString()


def test_what_was_exported_compiles_to_the_same_weights():
    proto = followed("Conv", [("BatchNormalization", False)], bias=True)
    trained = retrained(pcmc.compile(proto, builders.chip(24, 7)))
    again = pcmc.compile(trained_model(trained), builders.chip(24, 7)).banks["reader"]
    np.testing.assert_allclose(again.cells, trained.banks["reader"].cells, rtol=1e-5, atol=1e-6)


# Files.


def small_trained() -> pcmc.Program:
    return retrained(pcmc.compile(builders.mlp([40, 20, 4]), builders.chip(24, 7)))


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.onnx"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"a\.onnx: can't be written: No space left on device"):
        export_onnx(small_trained(), path)
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]


def test_a_path_that_can_not_be_written_is_a_clear_error(tmp_path):
    with pytest.raises(OutputError, match=r"no/a\.onnx: can't be written: No such file or directory"):
        export_onnx(small_trained(), tmp_path / "no" / "a.onnx")
    with pytest.raises(OutputError, match="is a folder"):
        export_onnx(small_trained(), tmp_path)


def test_a_program_file_that_is_missing_is_a_clear_error(tmp_path):
    with pytest.raises(ProgramError, match=r"a\.pcmc: no such file"):
        export_onnx(tmp_path / "a.pcmc", tmp_path / "a.onnx")


def test_a_model_too_large_for_one_file_keeps_its_tensors_beside_it(tmp_path, monkeypatch):
    trained = small_trained()
    export_onnx(trained, tmp_path / "whole.onnx")
    monkeypatch.setattr(export_module, "MOST_WEIGHT_BYTES", 1000)
    export_onnx(trained, tmp_path / "a.onnx")
    (data,) = tmp_path.glob("a.onnx.*.data")
    assert data.stat().st_size == 40 * 20 * 4
    assert (tmp_path / "a.onnx").stat().st_size < 2000
    assert constants(onnx.load(tmp_path / "a.onnx")).keys() == constants(trained.model).keys()
    np.testing.assert_array_equal(
        constants(onnx.load(tmp_path / "a.onnx"))["w0"], constants(onnx.load(tmp_path / "whole.onnx"))["w0"]
    )
    onnx.checker.check_model(tmp_path / "a.onnx")
    again = pcmc.compile(tmp_path / "a.onnx", builders.chip(24, 7))
    np.testing.assert_array_equal(again.banks["dense0"].cells, trained.banks["dense0"].cells)


@pytest.mark.parametrize("writes", [0, 1])
def test_a_large_model_on_a_full_disk_leaves_no_file(writes, tmp_path, monkeypatch):
    """The disk is full at the tensors, or after them."""
    monkeypatch.setattr(export_module, "MOST_WEIGHT_BYTES", 1000)
    left = iter(range(writes))

    def full(_: int) -> None:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export_onnx(small_trained(), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


# with_weights.


def test_other_weights_lie_in_the_same_cells():
    program = pcmc.compile(builders.conv((6, 2, 3, 3), (5, 5), group=3), builders.chip(10, 2))
    matrix, bias = program.banks["conv"].matrix()
    assert bias is not None
    other = with_weights(program, {"conv": (2 * matrix, bias - 1)})
    again, its_bias = other.banks["conv"].matrix()
    np.testing.assert_array_equal(again, 2 * matrix)
    np.testing.assert_array_equal(its_bias, bias - 1)
    np.testing.assert_array_equal(other.banks["conv"].table, program.banks["conv"].table)
    assert not other.banks["conv"].cells.flags.writeable
    np.testing.assert_array_equal(program.banks["conv"].matrix()[0], matrix)


def test_banks_that_are_not_named_keep_their_weights():
    program = pcmc.compile(builders.mlp([20, 9, 4]), builders.chip(24, 7))
    other = with_weights(program, {"dense1": (np.zeros((9, 4), np.float32), np.zeros(4, np.float32))})
    assert other.banks["dense0"] is program.banks["dense0"]
    assert not other.banks["dense1"].cells.any()


GROUPED = np.zeros((18, 2), np.float32)
WRONG_WEIGHTS = {
    "unknown": ({"other": (GROUPED, None)}, "has no bank 'other'; it has conv"),
    "shape": ({"conv": (GROUPED[:5], None)}, r"bank 'conv': a matrix of \[5, 2\], should be \[18, 2\]"),
    "bias": ({"conv": (GROUPED, GROUPED[0])}, "bank 'conv': has no place for a bias"),
    "nan": ({"conv": (GROUPED * np.nan, None)}, "bank 'conv': weights that are NaN or infinite"),
    "outside": ({"conv": (GROUPED + 1, None)}, "has numbers between its 2 groups"),
}


@pytest.mark.parametrize("case", WRONG_WEIGHTS)
def test_weights_that_do_not_fit_are_refused(case):
    banks, message = WRONG_WEIGHTS[case]
    program = pcmc.compile(builders.conv((2, 1, 3, 3), (5, 5), group=2, bias=False), builders.chip(24, 7))
    with pytest.raises(DataError, match=message):
        with_weights(program, banks)


@pytest.mark.parametrize("bias_row", [True, False])
def test_a_bias_must_be_given_where_the_bank_has_one(bias_row):
    program = pcmc.compile(builders.mlp([20, 4]), builders.chip(24, 7, bias_row=bias_row))
    matrix, _ = program.banks["dense0"].matrix()
    with pytest.raises(DataError, match="has a bias of 4 numbers, none was given"):
        with_weights(program, {"dense0": (matrix, None)})
    with pytest.raises(DataError, match=r"a bias of \[3\], should be \[4\]"):
        with_weights(program, {"dense0": (matrix, np.zeros(3, np.float32))})


def altered(what: str) -> pcmc.Program:
    """A program that does not hold together, as only a file made by hand can be."""
    trained = small_trained()
    if what == "no nodes":
        del trained.model.graph.node[:]
    elif what == "no clean nodes":
        del trained.clean.graph.node[:]
    elif what == "no clean constants":
        del trained.clean.graph.initializer[:]
    elif what == "fewer inputs":
        del trained.model.graph.node[0].input[1:]
    elif what == "other weights":
        trained.clean.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights(3, 4), "w0"))
    elif what == "another type":
        trained.model.graph.initializer[0].data_type = TensorProto.STRING
    elif what == "a loop":
        trained.model.graph.node[0].input[1] = trained.model.graph.node[0].output[0]
    return trained


ALTERED = (
    "no nodes",
    "no clean nodes",
    "no clean constants",
    "fewer inputs",
    "other weights",
    "another type",
)


@pytest.mark.parametrize("what", ALTERED)
def test_a_program_that_was_altered_is_a_clear_error(what):
    with pytest.raises(ProgramError, match=r"^net: .*(altered|has no input 1)"):
        exported(altered(what))


def test_an_altered_program_with_a_loop_comes_to_an_end():
    assert "a0/trained" in exported(altered("a loop")).added
