"""Vectors of reads: windows as onnxruntime reads them, gradients by the adjoint <Ax, d> = <x, A'd>."""

from __future__ import annotations

import builders
import numpy as np
import pytest
from builders import model, node
from hypothesis import given
from hypothesis import strategies as st

from pcmc.accel.tile import Window
from pcmc.runtime.program import Read
from pcmc.runtime.trainer.vectors import from_vectors, outputs_as_vectors, to_vectors, vectors_as_outputs

AUTO = ("", "SAME_UPPER", "SAME_LOWER")


@st.composite
def windows(draw, rank: int) -> tuple[Read, tuple[int, ...]]:
    """A window read, and the shape of an input that it fits, with one or two axes behind the channels."""

    def pair(low: int, high: int) -> tuple[int, int]:
        along_y = draw(st.integers(low, high)) if rank == 2 else low
        return along_y, draw(st.integers(low, high))

    kernel, strides, dilations = pair(1, 4), pair(1, 3), pair(1, 3)
    (top, left), (bottom, right) = pair(0, 3), pair(0, 3)
    auto = draw(st.sampled_from(AUTO))
    window = Window(kernel, strides, dilations, (0, 0, 0, 0) if auto else (top, left, bottom, right))
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(extent, extent + 6)) for extent in extents]
    n, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    shape = (n, channels, *(sizes if rank == 2 else sizes[1:]))
    return Read("window", window, auto_pad=auto), shape


def channels_of(shape: tuple[int, ...], how: Read) -> int:
    assert how.window is not None
    return shape[1] * how.window.kernel[0] * how.window.kernel[1]


@pytest.mark.parametrize("rank", [1, 2])
@given(data=st.data())
def test_gradients_of_windows_are_the_adjoint(rank, data):
    how, shape = data.draw(windows(rank))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = rng.integers(-8, 9, shape).astype(np.float32)  # whole numbers: sums are exact
    rows = channels_of(shape, how)
    vectors = to_vectors(x, how, rows)
    d = rng.integers(-8, 9, vectors.shape).astype(np.float32)
    back = from_vectors(d, x.shape, how)
    assert back.shape == x.shape
    assert float((vectors * d).sum()) == float((x * back).sum())


@pytest.mark.parametrize("rank", [1, 2])
@given(data=st.data())
def test_windows_times_a_matrix_are_a_convolution(rank, data):
    """The whole read, vectors, matrix and output, against onnxruntime's Conv."""
    how, shape = data.draw(windows(rank))
    window = how.window
    assert window is not None
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    cols = 3
    kernel = window.kernel if rank == 2 else window.kernel[1:]
    weights = rng.integers(-4, 5, (cols, shape[1], *kernel)).astype(np.float32)
    x = rng.integers(-4, 5, shape).astype(np.float32)
    keep = slice(2 - rank, None)
    attributes = {"strides": list(window.strides[keep]), "dilations": list(window.dilations[keep])}
    if how.auto_pad:
        attributes["auto_pad"] = how.auto_pad
    else:
        top, left, bottom, right = window.pads
        attributes["pads"] = [top, left, bottom, right] if rank == 2 else [left, right]
    if how.auto_pad and max(window.dilations) > 1:
        return  # onnxruntime takes no auto_pad with dilations
    proto = model(
        [node("Conv", ["x", "w"], ["y"], **attributes)], {"x": list(shape)}, {"y": None}, {"w": weights}
    )
    (wanted,) = builders.reference(proto, {"x": x})
    vectors = to_vectors(x, how, channels_of(shape, how))
    y = vectors @ weights.reshape(cols, -1).T
    out = how.output_shape(x.shape, cols)
    np.testing.assert_array_equal(vectors_as_outputs(y, out, how), wanted)
    np.testing.assert_array_equal(outputs_as_vectors(wanted, how, cols), y)


@pytest.mark.parametrize(
    ("how", "shape", "rows"),
    [
        (Read("dense"), (5, 7), 7),
        (Read("dense"), (2, 3, 7), 7),
        (Read("dense"), (7,), 7),
        (Read("columns"), (7, 4), 7),
        (Read("columns"), (2, 3, 7, 4), 7),
    ],
)
def test_vectors_of_products_come_back_as_they_were(how, shape, rows):
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    vectors = to_vectors(x, how, rows)
    assert vectors.shape == (x.size // rows, rows)
    assert vectors.flags.c_contiguous
    np.testing.assert_array_equal(from_vectors(vectors, shape, how), x)
    matrix = np.random.default_rng(0).integers(-3, 4, (rows, 5)).astype(np.float32)
    y = vectors @ matrix
    out = vectors_as_outputs(y, how.output_shape(shape, 5), how)
    wanted = x @ matrix if how.kind == "dense" else matrix.T @ x
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(outputs_as_vectors(out, how, 5), y)


def test_a_product_with_a_vector_has_no_axis_for_its_column():
    how = Read("dense", vector_output=True)
    y = np.arange(6, dtype=np.float32).reshape(6, 1)
    out = vectors_as_outputs(y, how.output_shape((2, 3, 4), 1), how)
    assert out.shape == (2, 3)
    np.testing.assert_array_equal(outputs_as_vectors(out, how, 1), y)


@pytest.mark.parametrize(
    ("how", "shape", "rows", "message"),
    [
        (Read("dense"), (5, 6), 7, "its last axis is 6, should be 7"),
        (Read("window", Window((3, 3))), (1, 2, 5, 5), 9, "its windows have 18 values, should be 9"),
    ],
)
def test_tensors_that_do_not_fit_the_bank_are_refused(how, shape, rows, message):
    with pytest.raises(ValueError, match=message):
        to_vectors(np.zeros(shape, np.float32), how, rows)
