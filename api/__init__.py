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
    from pcmc.runtime.calibration import Calibration
    from pcmc.runtime.export import export_onnx
    from pcmc.runtime.program import Program
    from pcmc.runtime.program_file import load, load_calibration, load_state
    from pcmc.runtime.session import Session
    from pcmc.runtime.trainer.trainer import Trainer
    from pcmc.workflows.calibrate import calibrate
    from pcmc.workflows.compare import compare
    from pcmc.workflows.compile import compile
    from pcmc.workflows.fit_cell import fit_cell

__version__ = "0.1.0"

_HOME = {
    "Calibration": "pcmc.runtime.calibration",
    "ChipSpec": "pcmc.accel.chip",
    "Physics": "pcmc.accel.physics",
    "Program": "pcmc.runtime.program",
    "Session": "pcmc.runtime.session",
    "Trainer": "pcmc.runtime.trainer.trainer",
    "calibrate": "pcmc.workflows.calibrate",
    "chip_names": "pcmc.accel.chip",
    "compare": "pcmc.workflows.compare",
    "compile": "pcmc.workflows.compile",
    "export_onnx": "pcmc.runtime.export",
    "fit_cell": "pcmc.workflows.fit_cell",
    "load": "pcmc.runtime.program_file",
    "load_calibration": "pcmc.runtime.program_file",
    "load_state": "pcmc.runtime.program_file",
    "load_chip": "pcmc.accel.chip",
}

__all__ = [
    "Calibration",
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
    "Trainer",
    "calibrate",
    "chip_names",
    "compare",
    "compile",
    "export_onnx",
    "fit_cell",
    "load",
    "load_calibration",
    "load_chip",
    "load_state",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'pcmc' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
