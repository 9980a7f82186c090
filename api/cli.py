"""The `pcmc` command: a thin coat over the public functions of `pcmc`.

Exit codes: 0 done, 2 a user's mistake (one clear line, no traceback), 1 a fault of ours.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pcmc.commands.options import (
    AsJson,
    At,
    Calibrate,
    CalibrateWhat,
    Chip,
    Compensation,
    Digital,
    Freeze,
    Model,
    Output,
    PhysicsOption,
    ProgramArgument,
    Seed,
    Shapes,
    Threads,
)
from pcmc.commands.reproduce import reproduce
from pcmc.commands.train import train
from pcmc.errors import DataError, PcmcError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compile stock ONNX models onto a tiled analog accelerator, run them with its physics, and "
    "count what they cost.",
)


@app.command()
def compile(
    model: Model,
    chip: Chip = None,
    shape: Shapes = None,
    freeze: Freeze = None,
    digital: Digital = None,
    output: Output = None,
    graph: Annotated[
        Path | None, typer.Option("--graph", metavar="FILE", help="Write the lowered graph: .dot or .json.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the result of every stage.")] = False,
    calibrate: Calibrate = None,
    calibrate_what: Annotated[
        str | None, typer.Option("--calibrate-what", metavar="NAME,NAME", help="adc, input, active [all].")
    ] = None,
    threads: Threads = 0,
    as_json: AsJson = False,
) -> None:
    """Compile a model onto a chip and write MODEL.pcmc."""
    from pcmc.commands import inputs, text
    from pcmc.workflows.compile import model_path

    _needs_data(calibrate, calibrate_what)

    source = model_path(model)
    program = inputs.compiled(source, chip, shape, freeze, digital, check)
    report = program.report()  # before anything is written: it may find that the shapes do not fit
    target = output or Path(source.name).with_suffix(".pcmc")
    data = inputs.calibration_data(calibrate, None, program)
    found = None
    if data is not None:
        from pcmc.workflows.calibrate import RANGES, calibrate_ranges

        found = calibrate_ranges(program, data, calibrate_what or RANGES, threads=threads)
    if graph is not None:
        inputs.write_graph(source, shape, freeze, digital, graph)
    if found is None:
        program.save(target)
    else:
        found.save(program, target)
        report["calibration"] = text.calibration_facts(found)
    _print(report, as_json, lambda: f"{text.summary(report)}\nwritten to {target}")


@app.command()
def run(
    program: ProgramArgument,
    data: Annotated[
        Path | None, typer.Option("--input", metavar="FILE.npz", help="An array for each input, by name.")
    ] = None,
    output: Output = None,
    chip: Chip = None,
    shape: Shapes = None,
    freeze: Freeze = None,
    digital: Digital = None,
    physics: PhysicsOption = "ideal",
    seed: Seed = 0,
    threads: Threads = 0,
    at: At = None,
    compensation: Compensation = "none",
    calibrate: Calibrate = None,
    calibrate_what: CalibrateWhat = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="FILE.pcmc", help="Read the devices that --save-state wrote there."),
    ] = None,
    save_state: Annotated[
        Path | None,
        typer.Option("--save-state", metavar="FILE.pcmc", help="Write the program with its devices."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Run a program on inputs and write its outputs."""
    from pcmc.commands import inputs, text
    from pcmc.runtime.session import Session
    from pcmc.workflows import calibrate as calibrating

    _needs_data(calibrate, calibrate_what)

    loaded = inputs.program(program, chip, shape, freeze, digital)
    if data is None:
        raise DataError(
            "pcmc run needs --input FILE.npz with an array for each input: "
            + ", ".join(i.name for i in loaded.inputs)
        )
    feeds = inputs.arrays(data, loaded)
    found = inputs.stored_calibration(program, loaded)
    samples = inputs.calibration_data(calibrate, None, loaded)
    options: dict[str, Any] = {"seed": seed, "threads": threads, "at": at, "compensation": compensation}
    if samples is not None:
        what = calibrate_what or calibrating.DEFAULT
        found = calibrating.calibrate(loaded, samples, physics=physics, what=what, **options)
    held = inputs.stored_state(state, calibrating_too=samples is not None)
    ranges = None if found is None else found.banks
    session = Session(loaded, physics, **options, state=held, calibration=ranges)
    calibrating.checked_chip(found, session.physics, [seed])
    names = [info.name for info in loaded.outputs]
    results = dict(zip(names, session.run(names, feeds), strict=True))
    if output is not None:
        inputs.write_arrays(results, output)
    if save_state is not None:
        session.save(save_state)
    summary = {name: text.array_facts(array) for name, array in results.items()}
    facts = {
        "outputs": summary,
        "physics": list(session.physics.names()),
        "seed": seed,
        "calibration": None if found is None else text.calibration_facts(found),
        "saturation": {name: dataclasses.asdict(counts) for name, counts in session.saturation.items()},
        "wires": None if session.wires is None else session.wires.facts(),
    }
    _print(facts, as_json, lambda: text.run_summary(facts, output))


@app.command()
def compare(
    model: Model,
    chip: Chip = None,
    shape: Shapes = None,
    freeze: Freeze = None,
    digital: Digital = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="FILE.npz", help="Inputs by name (or x), and labels y. Default: random input."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", metavar="N", min=1, help="How many seeds the physics is run with.")
    ] = 5,
    metric: Annotated[
        str | None, typer.Option("--metric", metavar="NAME,NAME", help="accuracy, agreement, mae, mse.")
    ] = None,
    physics: PhysicsOption = "full",
    seed: Seed = 0,
    threads: Threads = 0,
    at: At = None,
    compensation: Compensation = "none",
    ablate: Annotated[
        bool, typer.Option("--ablate", help="What each effect costs: with it off, and with it alone.")
    ] = False,
    by_layer: Annotated[
        bool, typer.Option("--by-layer", help="What each matrix costs: with the physics in it alone.")
    ] = False,
    calibrate: Calibrate = None,
    calibrate_what: CalibrateWhat = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Compare a model on the chip with onnxruntime: ideal mode, then the physics over several seeds."""
    from pcmc.commands import inputs, text
    from pcmc.workflows.calibrate import DEFAULT
    from pcmc.workflows.compare import compare as compare_model

    _needs_data(calibrate, calibrate_what)

    loaded = inputs.program(model, chip, shape, freeze, digital)
    samples = inputs.labelled(data, loaded) if data is not None else inputs.shipped_data(model)
    result = compare_model(
        loaded,
        data=samples,
        seeds=seeds,
        physics=physics,
        metric=metric,
        seed=seed,
        threads=threads,
        at=at,
        compensation=compensation,
        ablate=ablate,
        by_layer=by_layer,
        calibrate=inputs.calibration_data(calibrate, data, loaded),
        calibrate_what=calibrate_what or DEFAULT,
        calibration=inputs.stored_calibration(model, loaded),
    ).as_dict()
    if output is not None:
        inputs.write_json(result, output)
    _print(result, as_json, lambda: text.comparison(result))


@app.command()
def report(
    program: ProgramArgument,
    chip: Chip = None,
    shape: Shapes = None,
    freeze: Freeze = None,
    digital: Digital = None,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """What a program uses of the chip, how long it takes, what it costs, and what stays digital."""
    from pcmc.commands import inputs, text

    loaded = inputs.program(program, chip, None if program.endswith(".pcmc") else shape, freeze, digital)
    result = loaded.report(inputs.shapes(shape) if program.endswith(".pcmc") else None)
    if output is not None:
        inputs.write_json(result, output)
    _print(result, as_json, lambda: text.report(result))


@app.command()
def show(
    program: ProgramArgument,
    chip: Chip = None,
    shape: Shapes = None,
    digital: Digital = None,
    as_json: AsJson = False,
) -> None:
    """What a program holds: inputs, outputs, banks and steps."""
    from pcmc.commands import inputs, text

    loaded = inputs.program(program, chip, shape, None, digital)
    facts = text.program_facts(loaded, inputs.stored_calibration(program, loaded))
    _print(facts, as_json, lambda: text.program_table(facts))


@app.command()
def where(
    program: ProgramArgument,
    layer: Annotated[str, typer.Argument(metavar="LAYER")],
    chip: Chip = None,
    shape: Shapes = None,
    digital: Digital = None,
    as_json: AsJson = False,
) -> None:
    """Where a layer went: its blocks, with chip, tile, and rows and columns of the tile."""
    from pcmc.commands import inputs, text

    facts = text.where(inputs.program(program, chip, shape, None, digital), layer)
    _print(facts, as_json, lambda: text.where_table(facts))


@app.command()
def export(
    program: ProgramArgument,
    output: Output = None,
    chip: Chip = None,
    shape: Shapes = None,
    freeze: Freeze = None,
    digital: Digital = None,
    as_json: AsJson = False,
) -> None:
    """Write the weights of a program back into the model that it was compiled from, as .onnx."""
    from pcmc.commands import inputs
    from pcmc.commands.export_text import export_facts, export_summary
    from pcmc.runtime.export import exported, write_model

    if output is None:
        raise DataError("pcmc export needs -o FILE.onnx: the file to write")
    result = exported(inputs.program(program, chip, shape, freeze, digital))
    write_model(result.model, output)
    facts = export_facts(result, output)
    _print(facts, as_json, lambda: export_summary(facts))


app.command()(train)
app.command()(reproduce)


@app.command()
def chips(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[show] [CHIP]", help="A shipped chip or a chip file to show whole."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The chips that ship with pcmc, or one of them whole: pcmc chips show CHIP."""
    from pcmc.accel.chip import chip_names, chip_to_dict, load_chip
    from pcmc.commands import text

    names = (words or [])[1 if (words or [""])[0] == "show" else 0 :]
    if len(names) > 1 or (words and not names):
        raise typer.BadParameter("pcmc chips lists the chips, pcmc chips show CHIP shows one of them")
    specs = [load_chip(name) for name in names or chip_names()]
    documents = [chip_to_dict(spec) for spec in specs]
    _print(
        documents[0] if names else documents,
        as_json,
        lambda: text.chip(documents[0], specs[0].cell.untrainable) if names else text.chips(specs),
    )


@app.command("fit-cell")
def fit_cell(
    pulses: Annotated[
        Path,
        typer.Argument(
            metavar="PULSES.csv",
            help="Measured pulses: columns device, direction (up, down), pulse, conductance_us.",
        ),
    ],
    output: Output = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.svg", help="Draw the points with the fitted curves."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fit a cell of your own to measured pulses and write a chip file with it."""
    from pcmc.commands.fit_text import fit_tables
    from pcmc.workflows.fit_cell import fit_cell as fit

    facts = fit(pulses, output, picture).as_dict()
    _print(facts, as_json, lambda: fit_tables(facts))


@app.command()
def models(as_json: AsJson = False) -> None:
    """The models that ship with pcmc."""
    from pcmc.commands import text
    from pcmc.models import zoo

    facts = zoo.describe()
    _print(facts, as_json, lambda: text.models(facts))


def _needs_data(calibrate: Path | None, what: str | None) -> None:
    if what and calibrate is None:
        raise DataError("--calibrate-what needs --calibrate FILE.npz")


def _version(asked: bool) -> None:
    if asked:
        import pcmc

        typer.echo(f"pcmc {pcmc.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def _print(facts: Any, as_json: bool, as_text: Any) -> None:
    if as_json:
        from pcmc.commands.inputs import json_text

        typer.echo(json_text(facts))
    else:
        typer.echo(as_text())


def main() -> None:
    """Run the command line; a user's mistake becomes one line on standard error and exit code 2."""
    try:
        app()
    except PcmcError as error:
        typer.echo(f"pcmc: {_one_line(str(error))}", err=True)
        sys.exit(2)
    except MemoryError:
        typer.echo("pcmc: not enough memory for this model", err=True)
        sys.exit(1)


def _one_line(message: str) -> str:
    """A message without line breaks and control characters: names in it may come from a stranger's file."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in message)
