"""Conv in one and two dimensions, with every attribute, runs as onnxruntime runs it."""

import builders
import numpy as np
import onnx
import pytest
from builders import node, weights

import pcmc
from pcmc.errors import ModelError
from pcmc.runtime.program import Read


def close(proto, spec=None, **options):
    program = builders.compiled_like_onnxruntime(
        proto, spec, inputs=builders.feeds(proto, batch=2), **options
    )
    assert builders.placed_on_tiles(program) == {"conv"}
    return program


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("filters", "size", "attributes"),
    [
        ((4, 3, 3, 3), (6, 7), {}),
        ((4, 3, 3, 3), (6, 7), {"pads": [1, 1, 1, 1]}),
        ((4, 3, 3, 3), (6, 7), {"pads": [0, 2, 1, 3]}),
        ((4, 3, 2, 4), (9, 8), {"strides": [2, 3], "pads": [1, 0, 0, 2]}),
        ((4, 3, 3, 2), (9, 8), {"dilations": [2, 3], "pads": [1, 2, 3, 0]}),
        ((4, 3, 3, 3), (11, 10), {"dilations": [2, 1], "strides": [1, 2]}),
        ((4, 3, 1, 1), (5, 5), {"strides": [2, 2]}),
        ((4, 3, 5, 4), (5, 4), {}),
        ((1, 1, 1, 1), (1, 1), {}),
        ((4, 3, 3, 3), (6, 7), {"kernel_shape": [3, 3]}),
        ((4, 3, 3), (8,), {}),
        ((4, 3, 3), (8,), {"pads": [2, 1], "strides": [2]}),
        ((4, 3, 3), (9,), {"dilations": [3], "pads": [0, 4]}),
        ((4, 3, 1), (9,), {}),
    ],
)
def test_windows(filters, size, attributes, bias):
    close(builders.conv(filters, size, bias=bias, **attributes))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("sharing", builders.SHARINGS)
@pytest.mark.parametrize(
    ("filters", "size", "group"),
    [
        ((6, 2, 3, 3), (5, 6), 2),
        ((6, 1, 3, 3), (5, 6), 6),
        ((12, 1, 3, 3), (5, 6), 6),
        ((6, 3, 2), (7,), 2),
        ((5, 1, 3), (7,), 5),
    ],
)
def test_groups(filters, size, group, sharing, bias):
    proto = builders.conv(filters, size, group=group, bias=bias)
    program = close(proto, builders.chip(20, 4, sharing=sharing))
    (bank,) = program.banks.values()
    biases = filters[0] if bias else 0
    assert bank.cells.size == int(np.prod(filters)) + biases, "zeros off the diagonal take no cells"


@pytest.mark.parametrize("size", [5, 6, 7, 8])
@pytest.mark.parametrize("kernel", [2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding(auto_pad, stride, kernel, size):
    proto = builders.conv((2, 2, kernel, 3), (size, size + 1), auto_pad=auto_pad, strides=[stride, stride])
    close(proto)
    close(builders.conv((2, 2, kernel), (size,), auto_pad=auto_pad, strides=[stride]))


@pytest.mark.parametrize(
    ("auto_pad", "pads"),
    [("VALID", [0, 0, 0, 0]), ("SAME_UPPER", [2, 1, 2, 2]), ("SAME_LOWER", [2, 2, 2, 1])],
)
def test_automatic_padding_with_dilation_counts_the_dilated_window(auto_pad, pads):
    """onnxruntime takes no SAME with dilation: the judge has its padding spelled out."""
    filters, size, dilations = (2, 2, 3, 4), (9, 8), [2, 1]
    proto = builders.conv(filters, size, auto_pad=auto_pad, dilations=dilations)
    spelled_out = builders.conv(filters, size, pads=pads, dilations=dilations)
    inputs = builders.feeds(proto)
    builders.assert_close(
        builders.run(pcmc.compile(proto, check=True), inputs), builders.reference(spelled_out, inputs)
    )


def test_automatic_padding_follows_the_size_of_the_image():
    """One program, several sizes: what SAME pads depends on the size when the stride is not one."""
    nodes = [node("Conv", ["x", "w"], ["y"], name="conv", auto_pad="SAME_UPPER", strides=[2, 2])]
    proto = builders.model(
        nodes, {"x": ["N", 2, "H", "W"]}, {"y": ["N", 3, None, None]}, {"w": weights(3, 2, 3, 4)}
    )
    program = pcmc.compile(proto, shapes={"x": (1, 2, 8, 8)})
    fixed = [dim if isinstance(dim, int) else None for dim in program.inputs[0].shape]
    assert fixed == [None, 2, 8, 8]
    for height, width in ((8, 8), (7, 5), (6, 9)):
        window = next(step.read for step in program.steps if step.read is not None).window_for(height, width)
        assert window.output_size(height, width) == (-(-height // 2), -(-width // 2))


@pytest.mark.parametrize("kind", ["dense", "columns"])
def test_only_a_convolution_has_a_window(kind):
    with pytest.raises(ValueError, match="no window"):
        Read(kind).window_for(3, 3)


@pytest.mark.parametrize(("rows", "cols"), [(7, 3), (20, 5), (28, 4)])
@pytest.mark.parametrize("bias_row", [False, True])
def test_filters_cut_across_channels(rows, cols, bias_row):
    """Tiles too small for a window: the blocks begin inside of channels."""
    close(
        builders.conv((5, 3, 3, 3), (5, 6), pads=[1, 1, 1, 1]), builders.chip(rows, cols, bias_row=bias_row)
    )


def test_half_precision():
    half = onnx.TensorProto.FLOAT16
    nodes = [node("Conv", ["x", "w", "b"], ["y"], name="conv")]
    constants = {"w": weights(4, 3, 3, 3, dtype=np.float16), "b": weights(4, dtype=np.float16)}
    proto = builders.model(nodes, {"x": (["N", 3, 6, 6], half)}, {"y": (["N", 4, 4, 4], half)}, constants)
    close(proto, tolerance=1e-3)


def test_rows_follow_channel_then_window():
    """The matrix is the filters, flattened as ONNX stores them: row (channel * height + y) * width + x."""
    program = close(builders.conv((4, 3, 2, 3), (5, 5)))
    (bank,) = program.banks.values()
    np.testing.assert_array_equal(bank.matrix()[0], weights(4, 3, 2, 3).reshape(4, -1).T)


@pytest.mark.parametrize("computed", ["filters", "bias"])
def test_a_convolution_with_computed_operands(computed):
    """Computed filters leave nothing for the tiles; with a computed bias constant filters are refused."""
    nodes = [node("Abs", ["c"], ["a"]), node("Gemm", ["z", "v"], ["u"], name="gemm")]
    operands = ["x", "a", "b"] if computed == "filters" else ["x", "w", "a"]
    nodes.append(node("Conv", operands, ["y"], name="conv"))
    shape = [4, 3, 3, 3] if computed == "filters" else [4]
    proto = builders.model(
        nodes,
        {"x": [1, 3, 5, 5], "c": shape, "z": [2, 3]},
        {"y": [1, 4, 3, 3], "u": [2, 3]},
        {"w": weights(4, 3, 3, 3), "b": weights(4), "v": weights(3, 3)},
    )
    if computed == "bias":
        with pytest.raises(ModelError, match=r"node 'conv' \(Conv\)"):
            pcmc.compile(proto)
        return
    program = builders.compiled_like_onnxruntime(proto)
    assert builders.placed_on_tiles(program) == {"gemm"}
    assert "filters are computed" in program.digital["conv"]


def test_a_convolution_in_three_dimensions_is_refused_by_name():
    with pytest.raises(
        ModelError, match=r"node 'conv' \(Conv\): its constant weights 'w' \[4, 3, 2, 2, 2\].*1-D and 2-D"
    ):
        pcmc.compile(builders.conv((4, 3, 2, 2, 2), (4, 4, 4)))
