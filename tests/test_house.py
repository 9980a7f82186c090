"""The house keeps its rules: who imports whom, what is public, how long things are, what they are called."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pcmc

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("api", "compiler", "runtime", "accel", "models")

# What a room may import beside itself and the errors.
ALLOWED = {
    "api": {"compiler", "runtime", "accel", "models"},
    "compiler": {"runtime", "accel"},
    "runtime": {"accel"},
    "accel": set(),
    "models": set(),
}
LEAF = "pcmc.errors"

# Names that say nothing about what is inside.
EMPTY_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|$)")

# Lines that are not blank, in Python, Cython and C alike; a docstring counts.
FILE_LINES, FUNCTION_LINES = 500, 80
# file, or file:function -> why it may be longer
LONGER_FILES = {"accel/_tile_read_isa.h": "all kernels of one instruction set; included once for each"}
LONGER_FUNCTIONS: dict[str, str] = {}

PUBLIC = [
    "Calibration", "ChipError", "ChipSpec", "DataError", "ModelError", "OutputError", "PcmcError", "Physics",
    "Program", "ProgramError", "Session", "Trainer", "calibrate", "chip_names", "compare", "compile",
    "export_onnx", "fit_cell", "load", "load_calibration", "load_chip", "load_state",
]  # fmt: skip

# Folders that exist only on one machine; written so that this line is not found itself.
LOCAL_PATHS = re.compile(r"(?<![\w.])/(?:" + "|".join(["work", "tmp", "farm", "root", "home"]) + r")(?:/|\b)")
LOOKS_FOR_PATHS = {"tests/models/test_zoo.py": "looks for them in the shipped models"}
CODE = {".py", ".pyx", ".c", ".h"}
TEXT = CODE | {".toml", ".md", ".sh", ".csv", ".tsv", ".in", ""}
EVERYWHERE = (*ROOMS, "tests", "tools", "benchmarks", "examples")


def files_below(*folders: str) -> list[Path]:
    """Every file of the project below `folders`, caches and products of builds aside."""
    found = []
    for name in folders:
        for folder, inner, names in os.walk(ROOT / name):
            inner[:] = [one for one in inner if not one.startswith(("_", "."))]
            found += [Path(folder, one) for one in names]
    return sorted(path for path in found if path != ROOT / "accel" / "_kernels.c")


def room_files() -> list[Path]:
    return [path for path in files_below(*ROOMS) if path.suffix == ".py"]


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    """The name that a file of a room is imported by."""
    room, *rest = path.relative_to(ROOT).with_suffix("").parts
    parts = ["pcmc", *([] if room == "api" else [room]), *rest]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and module of each import in a file, wherever it stands; `from a import b` gives a.b."""
    package = module(path) if path.name == "__init__.py" else module(path).rpartition(".")[0]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def room_of(imported_name: str) -> str:
    """The room that a module pcmc... lies in."""
    second = imported_name.partition(".")[2].partition(".")[0]
    return second if second in ROOMS else "api"


def public_definitions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return [node for node in tree(path).body if isinstance(node, kinds) and not node.name.startswith("_")]


def test_the_walk_sees_every_room():
    found = {name(path).split("/")[0] for path in room_files()}
    assert found == set(ROOMS)
    assert len(room_files()) > 30


def test_imports_point_one_way():
    wrong = []
    for path in room_files():
        room = path.relative_to(ROOT).parts[0]
        for line, target in imported(path):
            ours = target == "pcmc" or target.startswith("pcmc.")
            if not ours or target == LEAF or target.startswith(LEAF + "."):
                continue
            if room_of(target) not in ALLOWED[room] | {room}:
                wrong.append(f"{name(path)}:{line}: {room} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_the_errors_import_nothing_of_ours():
    assert [target for _, target in imported(ROOT / "api" / "errors.py") if target.startswith("pcmc")] == []


def test_a_wrong_import_would_be_found(tmp_path, monkeypatch):
    """The test above is able to fail: absolute, relative and late imports all count."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "accel" / "cells").mkdir(parents=True)
    path = tmp_path / "accel" / "cells" / "bad.py"
    path.write_text(
        "from pcmc import runtime\n"
        "def f():\n"
        "    from ...compiler import graph\n"
        "    import pcmc.cli\n"
    )  # fmt: skip
    assert list(imported(path)) == [(1, "pcmc.runtime"), (3, "pcmc.compiler.graph"), (4, "pcmc.cli")]
    assert [room_of(target) for _, target in imported(path)] == ["runtime", "compiler", "api"]


def test_every_module_and_every_public_name_has_a_docstring():
    missing = []
    for path in room_files():
        if not ast.get_docstring(tree(path)):
            missing.append(name(path))
        bare = [node.name for node in public_definitions(path) if not ast.get_docstring(node)]
        missing += [f"{name(path)}: {public}" for public in bare]
    assert not missing, "\n".join(missing)


def code_lines(lines: list[str]) -> int:
    return sum(1 for line in lines if line.strip())


def test_no_file_is_over_500_lines():
    sources = [path for path in files_below(*EVERYWHERE) if path.suffix in CODE]
    lengths = {name(path): code_lines(path.read_text().splitlines()) for path in sources}
    long = {one: length for one, length in lengths.items() if length > FILE_LINES}
    assert not long.keys() - LONGER_FILES.keys(), long


def test_no_function_is_over_80_lines():
    long = {}
    for path in (path for path in files_below(*EVERYWHERE) if path.suffix == ".py"):
        lines = path.read_text().splitlines()
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = code_lines(lines[node.lineno - 1 : node.end_lineno])
                if length > FUNCTION_LINES:
                    long[f"{name(path)}:{node.name}"] = length
    assert not long.keys() - LONGER_FUNCTIONS.keys(), long


def test_names_of_modules_say_what_is_inside():
    stems = [part for path in files_below(*EVERYWHERE) for part in name(path).partition(".")[0].split("/")]
    assert [stem for stem in stems if EMPTY_NAMES.search(stem)] == []


def test_no_path_of_one_machine_in_the_sources():
    top = [path for path in ROOT.iterdir() if path.is_file() and not path.name.startswith(".")]
    found = []
    for path in [*top, *files_below(*EVERYWHERE, "docs", ".ci")]:
        if path.suffix in TEXT and name(path) not in LOOKS_FOR_PATHS:
            lines = path.read_text().splitlines()
            found += [f"{name(path)}: {line.strip()}" for line in lines if LOCAL_PATHS.search(line)]
    assert not found, "\n".join(found)


def test_the_public_names_are_these():
    """A name added or taken away is a decision, not an accident."""
    assert list(pcmc.__all__) == PUBLIC


@pytest.mark.parametrize("public", PUBLIC)
def test_every_public_name_is_there(public):
    assert getattr(pcmc, public).__module__.split(".")[0] == "pcmc"
    assert public in dir(pcmc)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = pcmc.no_such_name


def test_every_package_is_listed_for_installation():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    there = sorted(module(path) for path in room_files() if path.name == "__init__.py")
    assert there == sorted(listed)
    rooms = {room: "pcmc" if room == "api" else f"pcmc.{room}" for room in ROOMS}
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {package: room for room, package in rooms.items()}


def test_every_module_lies_in_a_package():
    for path in room_files():
        assert (path.parent / "__init__.py").is_file(), f"{name(path.parent)} has no __init__.py"


def test_import_pcmc_is_light():
    """Heavy packages wait until something needs them."""
    heavy = ("numpy", "onnx", "onnxruntime", "networkx", "scipy", "pooch", "typer", "rich")
    code = f"import sys, pcmc; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_command_explains_itself():
    command = [Path(sys.executable).with_name("pcmc"), "--help"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for verb in ("compile", "report", "compare"):
        assert verb in run.stdout
