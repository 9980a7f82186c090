"""pcmc: compile stock ONNX models onto a tiled analog accelerator, run them with its physics, and count what
they cost.

    import pcmc

    program = pcmc.compile("model.onnx", chip="nature2018")
    session = pcmc.Session(program, physics="full", seed=0)
    outputs = session.run(None, {"x": x})
    print(program.report()["energy_j"])

Names are imported where they are first used, so that `import pcmc` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pcmc.errors import ChipError, DataError, ModelError, OutputError, PcmcError, ProgramError

if TYPE_CHECKING:
    from pcmc.accel.chip import ChipSpec, chip_names, load_chip
    from pcmc.accel.physics import Physics
    from pcmc.runtime.program import Program
    from pcmc.runtime.program_file import load
    from pcmc.runtime.session import Session
    from pcmc.workflows.compare import compare
    from pcmc.workflows.compile import compile

__version__ = "0.1.0"

_HOME = {
    "ChipSpec": "pcmc.accel.chip",
    "Physics": "pcmc.accel.physics",
    "Program": "pcmc.runtime.program",
    "Session": "pcmc.runtime.session",
    "chip_names": "pcmc.accel.chip",
    "compare": "pcmc.workflows.compare",
    "compile": "pcmc.workflows.compile",
    "load": "pcmc.runtime.program_file",
    "load_chip": "pcmc.accel.chip",
}

__all__ = [
    "ChipError",
    "ChipSpec",
    "DataError",
    "ModelError",
    "OutputError",
    "PcmcError",
    "Physics",
    "Program",
    "ProgramError",
    "Session",
    "chip_names",
    "compare",
    "compile",
    "load",
    "load_chip",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pcmc' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
