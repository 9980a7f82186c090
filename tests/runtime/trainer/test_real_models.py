"""Real models are trained as they are: a small step against the gradient lowers the loss, or the node that no
gradient passes is named.
"""

from __future__ import annotations

import numpy as np
import pytest

import pcmc
from pcmc.errors import ModelError
from pcmc.runtime.trainer.trainer import Trainer
from pcmc.workflows.samples import random_inputs
from real import models_folder

TRAINED = {
    "acasxu_1_1", "ad_autoencoder_mlperftiny", "cifar10_biasfield_base", "cifar10_marabou_large",
    "cifar10_resnet20_crosssim", "cifar10_resnet32_akamaster_dynamo21", "cifar10_resnet32_akamaster_ts11",
    "cifar10_resnet32_akamaster_ts17_bn", "cifar10_resnet56_akamaster_dynamo20_ext",
    "cifar10_resnet8_mlperftiny", "cifar10_resnet_4b", "cifar10_vit_pgd_2_3_16", "cifar10_winml_cnn",
    "collins_rul_cnn_20", "dnsmos_model_v8", "espcn_superres_subpixel", "kws_dscnn_mlperftiny_fp32",
    "mnist_cnn6_crosssim", "mnist_cntk_opset7", "mnist_cntk_opt_opset8", "mnist_eran_sigmoid_6x200",
    "mnist_verivital_avgpool", "mnistfc_256x2", "nn4sys_mscn_128d", "vww_mobilenetv1_025_mlperftiny",
}  # fmt: skip
REFUSED = {
    "cifar10_resnet8_mlperftiny_int8_qdq": r"QuantizeLinear\): no gradient passes",
    "mnist_cnn6_crosssim_qdq_uint8": r"QuantizeLinear\): no gradient passes",
    "ultraface_rfb320": r"has 2 outputs \(scores, boxes\); training takes a model with one",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_step_on_a_real_model_lowers_its_loss(name):
    program = pcmc.compile(models_folder() / f"{name}.onnx")
    first = program.inputs[0].shape
    fixed = bool(first) and isinstance(first[0], int)
    x = random_inputs(program, 1 if fixed else 4, 0)
    trainer = Trainer(program, lr=1e-30, physics="ideal", loss="mse", batch=1 if fixed else 4, fast=False)
    y = np.zeros_like(trainer.predict(x))
    before = trainer.evaluate(x, y).loss
    # A step whose first-order change is 1 % of the loss, if the gradient is right.
    squared = sum(_gradient_square(trainer, x, y).values())
    trainer = Trainer(program, lr=0.01 * before / squared, physics="ideal", loss="mse", batch=trainer.batch)
    trainer.fit(x, y)
    change = (trainer.evaluate(x, y).loss - before) / before
    assert -0.02 < change < -0.002


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_no_gradient_passes_is_named(name):
    program = pcmc.compile(models_folder() / f"{name}.onnx")
    with pytest.raises(ModelError, match=REFUSED[name]):
        Trainer(program)


def _gradient_square(trainer, x, y):
    """The squared length of the gradient by the cells of each bank, from what an update would be."""
    squares = dict.fromkeys(trainer.banks, 0.0)

    def note(product):
        whole = product.x.T.astype(np.float64) @ product.d
        bank = trainer.compiled.banks[product.bank]
        for block in bank.table:
            inputs = int(block["rows"] - block["bias"])
            columns = slice(int(block["col0"]), int(block["col0"] + block["cols"]))
            squares[product.bank] += float(
                np.square(whole[int(block["row0"]) : int(block["row0"]) + inputs, columns]).sum()
            )
            if block["bias"]:
                squares[product.bank] += float(np.square(product.d[:, columns].sum(axis=0)).sum())

    trainer._update = note
    trainer.fit(x, y)
    return squares
