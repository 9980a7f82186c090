"""The arguments and options that commands share, as typer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="An .onnx file, or a shipped model (see: pcmc models).")
]
ProgramArgument = Annotated[
    str,
    typer.Argument(
        metavar="PROGRAM", help="A .pcmc file; an .onnx file or a shipped model is compiled first."
    ),
]
Chip = Annotated[
    str | None,
    typer.Option("--chip", metavar="C", help="A shipped chip (see: pcmc chips) or a chip file [nature2018]."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option("--shape", metavar="NAME=1,3,32,32", help="Sizes of an input with open dimensions."),
]
Freeze = Annotated[
    list[str] | None, typer.Option("--freeze", metavar="NAME=16000", help="Make an input a constant.")
]
Digital = Annotated[
    list[str] | None,
    typer.Option("--digital", metavar="LAYER,LAYER", help="Layers that stay off the tiles."),
]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where the result goes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PhysicsOption = Annotated[
    str, typer.Option("--physics", metavar="ideal|full|NAME,NAME", help="Effects that are on.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="One seed, one result.")]
Threads = Annotated[int, typer.Option("--threads", metavar="N", help="0: all processors.")]
At = Annotated[
    str | None, typer.Option("--at", metavar="1h", help="Time since programming [the cell's first read].")
]
Compensation = Annotated[
    str, typer.Option("--compensation", metavar="none|global|column", help="What is done about drift.")
]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        "--calibrate", metavar="FILE.npz", help="Some hundred inputs that converters are fitted to."
    ),
]
CalibrateWhat = Annotated[
    str | None,
    typer.Option("--calibrate-what", metavar="NAME,NAME", help="adc, input, active, bias, norm [not bias]."),
]
