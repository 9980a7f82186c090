"""What `pcmc export` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pcmc.runtime.export import Export

Facts = dict[str, Any]


def export_facts(export: Export, target: Path) -> Facts:
    """What became different in the user's model, as plain data."""
    return {
        "changed": list(export.changed),
        "added": list(export.added),
        "clipped": dict(export.clipped),
        "written": str(target),
    }


def export_summary(facts: Facts) -> str:
    """What became different in the user's model, in a few lines."""
    changed, added, clipped = facts["changed"], facts["added"], facts["clipped"]
    lines = [f"{len(changed)} tensors with new values, {len(added)} new tensors"]
    if not changed and not added:
        lines = ["all weights are as compiled: the model is the original"]
    if clipped:
        most = max(clipped, key=lambda name: clipped[name])
        lines.append(
            f"{sum(clipped.values())} values did not fit the type that holds them and were clipped, most in "
            f"'{most}' ({clipped[most]})"
        )
    return "\n".join([*lines, f"written to {facts['written']}"])
