"""Whole real models by the rules alone: outputs against onnxruntime, gradients against differences."""

import numpy as np
import onnx
import onnxruntime
import pytest
import rule_chain

import real
from pcmc.runtime.ops.node import Context
from pcmc.runtime.ops.table import RULES

#: Training does not reach through recurrent cells, transposed convolutions and branches.
WITHOUT_A_RULE = {"ConvTranspose", "GRU", "LSTM", "If"}

MODELS = [
    "acasxu_1_1",
    "ad_autoencoder_mlperftiny",
    "cifar10_biasfield_base",
    "cifar10_marabou_large",
    "cifar10_resnet20_crosssim",
    "cifar10_resnet32_akamaster_dynamo21",
    "cifar10_resnet32_akamaster_ts11",
    "cifar10_resnet32_akamaster_ts17_bn",
    "cifar10_resnet56_akamaster_dynamo20_ext",
    "cifar10_resnet8_mlperftiny",
    "cifar10_resnet_4b",
    "cifar10_vit_pgd_2_3_16",
    "cifar10_winml_cnn",
    "collins_rul_cnn_20",
    "dnsmos_model_v8",
    "espcn_superres_subpixel",
    "kws_dscnn_mlperftiny_fp32",
    "mnist_cnn6_crosssim",
    "mnist_cntk_opset7",
    "mnist_cntk_opt_opset8",
    "mnist_eran_sigmoid_6x200",
    "mnist_verivital_avgpool",
    "mnistfc_256x2",
    "nn4sys_mscn_128d",
    "sklearn_mlp_ezkl",
    "ultraface_rfb320",
    "vww_mobilenetv1_025_mlperftiny",
]

#: In half precision, which onnxruntime rounds at other places than the rules do.
HALF_MODELS = ["cifar10_resnet20_crosssim_fp16", "squeezenet_fp16_opset7"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS + HALF_MODELS)
def test_a_model_by_the_rules_equals_onnxruntime(name) -> None:
    path = real.model_path(f"{name}.onnx")
    model, feeds = onnx.load(path), feeds_of(path, np.float16 if name in HALF_MODELS else np.float32)
    expected = onnxruntime.InferenceSession(path).run(None, feeds)
    nodes = rule_chain.nodes_of(model)
    values = rule_chain.forward(nodes, {**rule_chain.parameters_of(model), **feeds}, evaluation())
    tolerance = 1e-2 if name in HALF_MODELS else 1e-4
    for info, theirs in zip(model.graph.output, expected, strict=True):
        ours = values[info.name]
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert np.abs(ours - theirs).max() <= tolerance * np.abs(theirs).max()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_a_model_is_the_numerical_one(name) -> None:
    path = real.model_path(f"{name}.onnx")
    model, feeds = onnx.load(path), feeds_of(path, np.float64)
    nodes = rule_chain.nodes_of_doubles(model)
    parameters = rule_chain.doubles(rule_chain.parameters_of(model))
    rng = np.random.default_rng(5)
    values = rule_chain.forward(nodes, {**parameters, **feeds}, evaluation())
    outputs = [info.name for info in model.graph.output if values[info.name].dtype.kind == "f"]
    weights = {name: rng.normal(size=values[name].shape) for name in outputs}
    grads = rule_chain.backward(nodes, values, weights, evaluation())
    trained = {name: array for name, array in parameters.items() if name in grads}
    assert trained
    directions = {name: rng.normal(size=array.shape) * array for name, array in trained.items()}

    def loss(step: float) -> float:
        moved = {name: array + step * directions[name] for name, array in trained.items()}
        found = rule_chain.forward(nodes, {**parameters, **moved, **feeds}, evaluation())
        return sum(float((found[name] * weight).sum()) for name, weight in weights.items())

    step = 1e-7
    numerical = (loss(step) - loss(-step)) / (2 * step)
    slope = sum(float((grads[name] * direction).sum()) for name, direction in directions.items())
    size = sum(float(np.abs(values[name] * weight).sum()) for name, weight in weights.items())
    assert abs(numerical - slope) < 1e-5 * size
    assert abs(slope) > 1e-3 * size


@pytest.mark.parametrize("name", MODELS + HALF_MODELS)
def test_every_operator_of_a_real_model_has_a_row(name) -> None:
    model = onnx.load(real.model_path(f"{name}.onnx"), load_external_data=False)
    assert {node.op_type for node in model.graph.node} <= set(RULES)


def test_models_left_out_hold_what_has_no_rule() -> None:
    folder = real.models_folder()
    for path in sorted(folder.glob("*.onnx")):
        nodes = onnx.load(path, load_external_data=False).graph.node
        own = all(node.domain in ("", "ai.onnx") and not node.op_type.startswith("QLinear") for node in nodes)
        if own and path.stem not in MODELS + HALF_MODELS:
            assert {node.op_type for node in nodes} & {*WITHOUT_A_RULE, "QuantizeLinear"}, path.name


def feeds_of(path, dtype) -> dict[str, np.ndarray]:
    """Inputs drawn for a model: two examples where it lets one choose."""
    rng = np.random.default_rng(2)
    feeds = {}
    for info in onnxruntime.InferenceSession(path).get_inputs():
        shape = [size if isinstance(size, int) else 2 for size in info.shape]
        feeds[info.name] = rng.uniform(0, 1, shape).astype(np.float32).astype(dtype)
    return feeds


def evaluation() -> Context:
    return Context(training=False, stream=lambda name: np.random.default_rng(0))
