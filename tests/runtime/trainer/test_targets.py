"""Labels and targets: what each loss takes, and that the first wrong one is named."""

from __future__ import annotations

import numpy as np
import pytest

from pcmc.errors import DataError
from pcmc.runtime.ops.losses import LOSSES
from pcmc.runtime.trainer.targets import check_targets

LOGITS = np.zeros((1, 3), np.float32)


@pytest.mark.parametrize(
    "labels", [[0, 2, 1], [0.0, 2.0, 1.0], [[0], [2], [1]], np.array([0, 2, 1], np.uint8)]
)
def test_labels_in_any_form_are_whole_numbers(labels):
    found = check_targets(np.asarray(labels), 3, LOGITS, LOSSES["cross_entropy"])
    assert found.values.dtype == np.int64
    assert found.values.tolist() == [0, 2, 1]
    assert found.has_classes
    assert found.by_kernel
    assert found.right(np.eye(3, dtype=np.float32), found.values) == 1


def test_chances_are_targets_of_classes_too_but_not_for_the_kernel():
    found = check_targets(np.eye(3), 3, LOGITS, LOSSES["cross_entropy"])
    assert found.values.dtype == np.float32
    assert (found.has_classes, found.by_kernel) == (True, False)
    assert found.right(np.eye(3, dtype=np.float32), found.values) == 3


def test_values_have_no_classes():
    found = check_targets(np.zeros((4, 3)), 4, LOGITS, LOSSES["mse"])
    assert (found.has_classes, found.by_kernel) == (False, True)
    assert found.right(np.zeros((4, 3), np.float32), found.values) == 0
    assert len(found) == 4


def test_losses_and_gradients_are_those_of_the_loss():
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((5, 3)).astype(np.float32), np.array([0, 1, 2, 1, 0])
    found = check_targets(y, 5, LOGITS, LOSSES["cross_entropy"])
    losses, grad = found.loss_and_grad(z, found.values)
    wanted, slope = LOSSES["cross_entropy"].value_and_grad(z, y)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
    np.testing.assert_allclose(grad, slope, atol=1e-6)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([0, 1, 3], "label 3 of example 2 is out of range: the model has 3 classes, 0 to 2"),
        ([0, -1, 3], "label -1 of example 1"),
        ([0, 1], r"there are 3 examples, but targets of shape \[2\]: one for each is needed"),
        (1, r"targets of shape \[\]"),
    ],
)
def test_wrong_labels_are_named(y, message):
    with pytest.raises(DataError, match=message):
        check_targets(np.asarray(y), 3, LOGITS, LOSSES["cross_entropy"])


@pytest.mark.parametrize("loss", ["mse", "bce", "cross_entropy"])
@pytest.mark.parametrize("y", [np.full((3, 3), np.nan), np.zeros((3, 4)), np.array(["a", "b", "c"])])
def test_targets_that_are_no_numbers_or_of_another_shape_are_refused(loss, y):
    with pytest.raises(DataError):
        check_targets(y, 3, LOGITS, LOSSES[loss])
