"""The command `python -m benchmarks.peers`: compare with aihwkit, print tables, write JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.__main__ import machine
from benchmarks.peers import accuracy, converters, ours, speed, statistics
from benchmarks.peers.environment import ask, require, set_up

Row = dict[str, Any]
LATEST = Path(os.path.relpath(ROOT / "benchmarks" / "results" / "peers.json"))
VERDICTS = {True: "agrees", False: "DIFFERS"}
EXPECTED = {True: "", False: "(must differ)", None: "(known difference)"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"{', '.join(SECTIONS)}; default: all")
    parser.add_argument("--setup", action="store_true", help="make the peer's environment, then stop")
    parser.add_argument(
        "-o", "--output", type=Path, default=LATEST, metavar="FILE", help="default: %(default)s"
    )
    options = parser.parse_args()
    for name in options.sections:
        if name not in SECTIONS:
            parser.error(f"there is no section '{name}'; there are {', '.join(SECTIONS)}")
    if options.setup:
        set_up()
        return
    require()
    result: Row = {"machine": machine() | about(), "sections": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name in options.sections or SECTIONS:
        title, rows, text = SECTIONS[name]
        print(f"\n{title}\n", flush=True)
        found = []
        for row in rows():
            found.append(row)
            print(text(row), flush=True)
        result["sections"][name] = found
        options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n" + summary(result["sections"]))


def about() -> Row:
    """The peer's versions, and its default polynomial of noise-aware training beside the published one."""
    found = ask("about", {})
    return {
        "aihwkit": str(found["aihwkit"]),
        "torch": str(found["torch"]),
        "aihwkit's noise-aware default": found["aware_coefficients"].tolist(),
        "published polynomial / 25 uS": found["published_coefficients"].round(6).tolist(),
    }


def summary(sections: Row) -> str:
    """One line: what agrees of what should, and which controls differ."""
    rows = [row for name in ("devices", "layer", "converters", "accuracy") for row in sections.get(name, ())]
    should = [row["agrees"] for row in rows if row.get("must") is True]
    controls = [not row["agrees"] for row in rows if row.get("must") is False]
    met = [row["met"] for name in ("model", "tile") for row in sections.get(name, ()) if "met" in row]
    return (
        f"{sum(should)} of {len(should)} comparisons agree; {sum(controls)} of {len(controls)} negative "
        f"controls fail as they must; {sum(met)} of {len(met)} bars of speed met"
    )


def verdict_text(row: Row) -> str:
    """A row of statistics: each value with its 90 % interval."""
    target = "" if row["target"] is None else f"{row['target']:g} uS"
    values = "  ".join(
        f"{name} {found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}]"
        for name, found in row["verdicts"].items()
    )
    if "bias" in row:
        values += f"  (bias {row['bias']['ours']:.3f} sd, aihwkit's {row['bias']['peers']:.3f})"
    verdict = f"{VERDICTS[row['agrees']]:8}{EXPECTED[row['must']]:19}"
    return f"{row['what']:48}{target:>8}  {verdict}{values}".rstrip()


def accuracy_text(row: Row) -> str:
    """Mean over seeds and, for the peer, the difference with its 90 % interval."""
    text = f"{row['what']:48}{row['mean']:7.2f} %  deviation {row['deviation']:.2f}  {row['seeds']} seeds"
    if "verdict" not in row:
        return text + f", {row['images']} images"
    found = row["verdict"]
    interval = f"{found['value']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}] points"
    return f"{text}  pcmc - aihwkit {interval}  {VERDICTS[row['agrees']]} {EXPECTED[row['must']]}".rstrip()


def speed_text(row: Row) -> str:
    """Images a second, or ms for a tile, and how many times as long as pcmc it takes."""
    size = f"{row['vectors']:4} vectors  " if "vectors" in row else ""
    value = f"{row['ms']:9.3f} ms" if "ms" in row else f"{row['images_s']:9.1f} images/s"
    times = f"  {row['times']:8.2f} x pcmc's time" if "times" in row else ""
    met = "" if "met" not in row else "  bar met" if row["met"] else "  bar NOT met"
    return f"{row['what']:48}{row['threads']} threads  {size}{value}{times}{met}"


def converters_text(row: Row) -> str:
    """How far codes are apart, or outputs of a network."""
    if "steps" in row:
        verdict = f"{VERDICTS[row['agrees']]:8}{EXPECTED[row['must']]:19}"
        other = f"{100 * row['other']:8.4f} % of {row['outputs']} with another code, {row['steps']:.3g} steps"
        return f"{row['what']:52}{verdict}{other}; {100 * row['clipped']:.0f} % clipped"
    differences = f"differ by {row['typical']:.2g} (largest {row['largest']:.2g}) of {row['effect']:.2g}"
    return f"{row['what']:52}{differences}, {row['alike']:.0f} % of {row['images']} images alike"


def _converters() -> Iterator[Row]:
    yield from converters.rows()
    for network in (ours.RESNET32, ours.RESNET20):
        yield from _with(network, converters.network_rows)


def _accuracies() -> Iterator[Row]:
    for network, on, shipped in (
        (ours.RESNET32, False, True),
        (ours.RESNET20, False, False),
        (ours.RESNET32, True, False),
    ):
        yield from _with(network, partial(accuracy.rows, converters=on, shipped=shipped))


def _with(network: ours.Network, rows: Callable[[ours.Network], Iterable[Row]]) -> Iterator[Row]:
    """Rows about a network; none, with a line that says so, where its file is missing."""
    if network.path is None:
        print(f"left out: PCMC_TEST_MODELS names no folder with {network.file}")
        return
    yield from rows(network)


Section = tuple[str, Callable[[], Iterable[Row]], Callable[[Row], str]]
SECTIONS: dict[str, Section] = {
    "devices": ("Single devices, by target", statistics.device_rows, verdict_text),
    "layer": ("A dense layer of 128 inputs", statistics.layer_rows, verdict_text),
    "converters": ("DAC and ADC, and nothing else", _converters, converters_text),
    "accuracy": ("CIFAR-10, first read", _accuracies, accuracy_text),
    "tile": ("A 512 x 512 tile", speed.tile_rows, speed_text),
    "model": ("ResNet-32, batch 64", lambda: _with(ours.RESNET32, speed.model_rows), speed_text),
}


if __name__ == "__main__":
    main()
