"""Every real model: compiled and equal to onnxruntime, or refused with the node named. Prints the table
(pytest -s).
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest

import pcmc
import real
from pcmc.workflows.compare import compare, output_step
from pcmc.workflows.metrics import interval
from pcmc.workflows.runs import reference_session
from pcmc.workflows.samples import random_inputs

# Models whose matrices are of a kind that is not mapped, and the node that the message must name.
REFUSED = {
    "carvana_unet_upsample.onnx": "ConvTranspose",
    "cgan_32_1.onnx": "ConvTranspose",
    "dtln_model_1.onnx": "LSTM",
    "espcn_superres_quant_brevitas.onnx": "onnx.brevitas:Quant",
    "gru_ezkl.onnx": "GRU",
    "mnist_cnn6_crosssim_qoperator.onnx": "QLinearConv",
    "ppocr_mobile_det_paddle.onnx": "ConvTranspose",
    "silero_vad_if.onnx": "Conv",
    "snips_bidi_lstm.onnx": "LSTM",
}
SHAPES = {"ppocr_mobile_det_paddle.onnx": {"image": (1, 3, 64, 64)}}
FULL_TEST_SET = (
    "mnist_cntk_opset7.onnx",
    "mnistfc_256x2.onnx",
    "cifar10_resnet8_mlperftiny.onnx",
    "cifar10_resnet32_akamaster_ts11.onnx",
)
NARROW = (onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8, onnx.TensorProto.UINT8)


def filenames() -> list[str]:
    """Names of the real models; one entry that asks for the folder where it is missing."""
    import os

    folder = Path(os.environ.get("PCMC_TEST_MODELS", "no such folder"))
    return sorted(path.name for path in folder.glob("*.onnx")) or ["the folder of real models"]


@functools.cache
def compiled(filename: str) -> pcmc.Program:
    return pcmc.compile(real.model_path(filename), shapes=SHAPES.get(filename), check=True)


def bound(program: pcmc.Program, name: str, want: np.ndarray) -> float:
    """The issue of exactness: 1e-4 of the largest output, or two steps of an output that the model rounds."""
    step = output_step(program, name, want)
    if step is not None:
        return 2 * step
    narrow = any(tensor.data_type in NARROW for tensor in program.model.graph.initializer)
    return (2e-3 if narrow else 1e-4) * float(np.abs(want).max())


@pytest.mark.slow
@pytest.mark.parametrize("filename", filenames())
def test_real_model_equals_onnxruntime_or_is_refused_by_node(filename: str) -> None:
    path = real.model_path(filename)
    if filename in REFUSED:
        with pytest.raises(pcmc.ModelError, match=rf"node '.*' \({REFUSED[filename]}\)") as refusal:
            compiled(filename)
        print(f"\n{filename:52s} refused  {str(refusal.value)[:150]}")
        return
    program = compiled(filename)
    names = [info.name for info in program.outputs]
    feeds = random_inputs(program, 4, seed=1)
    want = reference_session(program, 2).run(names, feeds)
    got = pcmc.Session(program, threads=2).run(names, feeds)
    assert path.name == filename
    for name, g, w in zip(names, got, want, strict=True):
        assert g.dtype == w.dtype
        assert g.shape == w.shape
        error = float(np.abs(g.astype(np.float64) - w.astype(np.float64)).max())
        print(
            f"\n{filename:52s} compiled {name[:20]:20s} error {error:.2e} of {np.abs(w).max():.3g} "
            f"({program.tiles} tiles, {program.chips} chips)"
        )
        assert error <= bound(program, name, w), name


@pytest.mark.slow
@pytest.mark.parametrize("filename", sorted(real.MODELS_WITH_DATA))
def test_two_hundred_real_images_equal_onnxruntime(filename: str) -> None:
    if filename in REFUSED:
        return
    program = compiled(filename)
    name, output = program.inputs[0].name, program.outputs[0].name
    x, _ = real.inputs(filename, 200)
    size = 1 if real.MODELS_WITH_DATA[filename].fixed_batch else 50
    sessions = pcmc.Session(program, threads=2), reference_session(program, 2)
    got, want = (
        np.concatenate([s.run([output], {name: x[i : i + size]})[0] for i in range(0, len(x), size)]).reshape(
            len(x), -1
        )
        for s in sessions
    )
    allowed = bound(program, output, want)
    assert float(np.abs(got.astype(np.float64) - want.astype(np.float64)).max()) <= allowed
    best = np.sort(want.astype(np.float64), axis=1)
    clear = best[:, -1] - best[:, -2] > 2 * allowed
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(got.argmax(axis=1)[clear], want.argmax(axis=1)[clear])


@pytest.mark.slow
@pytest.mark.parametrize("filename", FULL_TEST_SET)
def test_full_test_set_scores_as_onnxruntime_to_the_image(filename: str) -> None:
    program = compiled(filename)
    x, y = real.inputs(filename, 10_000)
    result = compare(program, data=(x, y), seeds=3, threads=2)
    accuracy = result.metrics["accuracy"]
    physics = interval(accuracy["physics"]["values"])
    print(
        f"\n{filename:52s} onnxruntime {accuracy['onnxruntime']:.4f} ideal {accuracy['ideal']:.4f} "
        f"full physics {physics.mean:.4f} [{physics.low:.4f}, {physics.high:.4f}]"
    )
    ties = (1.0 - result.metrics["agreement"]["ideal"]) * len(y)
    assert abs(accuracy["ideal"] - accuracy["onnxruntime"]) * len(y) <= ties < 3
    assert accuracy["onnxruntime"] * 100 == pytest.approx(real.MODELS_WITH_DATA[filename].accuracy, abs=0.06)
    assert 0.1 < physics.mean < accuracy["onnxruntime"] + 0.01
    assert len(set(physics.values)) > 1
