"""What a training may be asked for, and when it has come to its end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pcmc.errors import DataError
from pcmc.runtime.ops.losses import LOSSES
from pcmc.runtime.trainer.progress import Epoch

#: Training in place, or in software with the chip's noise in the forward pass.
MODES = ("on-chip", "noise-aware")


def check_mode(mode: str, weight_noise: float | None) -> None:
    """DataError for an unknown mode, or noise that is out of range or not of this mode."""
    if mode not in MODES:
        raise DataError(f"mode = {mode!r}: must be one of {', '.join(MODES)}")
    if weight_noise is None:
        return
    if mode == "on-chip":
        raise DataError(
            f'weight_noise = {weight_noise:g}: is of mode "noise-aware"; on the chip cells have theirs'
        )
    if not (math.isfinite(weight_noise) and 0 <= weight_noise <= 1):
        raise DataError(f"weight_noise = {weight_noise:g}: must be from 0 to 1, of the largest weight")


def loss_name(asked: str | None, implied: str) -> str:
    """The loss that is asked for, or else what the network's end implies; DataError for an unknown one."""
    name = implied if asked is None else asked
    if name not in LOSSES:
        raise DataError(f"loss {name!r}: should be one of {', '.join(LOSSES)}")
    return name


def check_numbers(lr: float, decay: float, batch: int, momentum: float, weight_range: float | None) -> None:
    """DataError for a setting that is out of range."""
    for name, value, low, high in (
        ("lr", lr, 0.0, 1e6),
        ("decay", decay, 0.0, 1.0),
        ("weight_range", 1.0 if weight_range is None else weight_range, 0.0, 1e6),
    ):
        if not (math.isfinite(value) and low < value <= high):
            raise DataError(f"{name} = {value:g}: must be more than {low:g}, at most {high:g}, and finite")
    if not 0 <= momentum < 1:
        raise DataError(f"momentum = {momentum:g}: must be from 0 to below 1")
    if isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= 1_000_000:
        raise DataError(f"batch = {batch}: must be a whole number from 1 to 1,000,000")


def no_progress(epochs: Sequence[Epoch], patience: int) -> str:
    """Why to stop, if the loss has not fallen for so many epochs; else ""."""
    if not patience or len(epochs) <= patience:
        return ""
    losses = [epoch.loss if epoch.validation is None else epoch.validation.loss for epoch in epochs]
    best = min(losses[:-patience])
    if min(losses[-patience:]) < best:
        return ""
    return f"no progress: the loss has not fallen below {best:.4g} for {patience} epochs"
