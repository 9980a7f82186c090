"""Real models score on real data, in onnxruntime, what `real.py` says: preparation and labels are right."""

import onnxruntime
import pytest

import real


def session(path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize("filename", real.MODELS_WITH_DATA)
def test_a_real_model_scores_what_is_known_of_it(filename):
    model = session(real.model_path(filename))
    (entry,) = model.get_inputs()
    assert isinstance(entry.shape[0], int) == real.MODELS_WITH_DATA[filename].fixed_batch
    known = real.MODELS_WITH_DATA[filename].accuracy
    measured = real.accuracy(filename, lambda x: model.run(None, {entry.name: x})[0], count=1_000)
    # 1,000 of 10,000 images: three standard errors of a share near the known one.
    error = (known * (100 - known) / 1_000) ** 0.5
    assert measured == pytest.approx(known, abs=3 * error)


@pytest.mark.slow
@pytest.mark.parametrize(
    "filename",
    [
        "mnist_cntk_opset7.onnx",
        "mnistfc_256x2.onnx",
        "cifar10_resnet8_mlperftiny.onnx",
        "cifar10_resnet32_akamaster_ts11.onnx",
    ],
)
def test_a_real_model_scores_exactly_that_on_the_full_test_set(filename):
    model = session(real.model_path(filename))
    (entry,) = model.get_inputs()
    measured = real.accuracy(filename, lambda x: model.run(None, {entry.name: x})[0])
    # Another processor may round differently: two images of 10,000 may change sides.
    assert measured == pytest.approx(real.MODELS_WITH_DATA[filename].accuracy, abs=0.021)
