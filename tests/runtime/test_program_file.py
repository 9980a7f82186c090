"""A program file comes back as it was, and whatever a stranger writes into one is a ProgramError."""

import contextlib
import copy
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import builders
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import pcmc
from pcmc.errors import PcmcError, ProgramError
from pcmc.runtime import program_file
from pcmc.runtime.program import Program

Members = dict[str, bytes]


def model() -> onnx.ModelProto:
    """A grouped convolution with BatchNormalization, a large dense layer, and digital work around them."""
    constants = {
        "w": builders.weights(4, 1, 3, 3),
        "gain": builders.weights(4, seed=1) + 2,
        "shift": builders.weights(4, seed=2),
        "mean": builders.weights(4, seed=3),
        "variance": np.full(4, 2.0, np.float32),
        "rows": np.array([0, 100], np.int64),
        "dense": builders.weights(100, 7, seed=4),
        "bias": builders.weights(7, seed=5),
        "mask": builders.weights(300, seed=6),
    }
    nodes = [
        builders.node("Conv", ["x", "w"], ["c"], name="conv", group=2, auto_pad="SAME_UPPER"),
        builders.node("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["n"], name="norm"),
        builders.node("Relu", ["n"], ["r"], name="relu"),
        builders.node("Reshape", ["r", "rows"], ["f"], name="flat"),
        builders.node("Gemm", ["f", "dense", "bias"], ["g"], name="dense"),
        builders.node("Mul", ["g", "factor"], ["y"], name="scale"),
        builders.node("ReduceMax", ["y"], ["top"], name="largest", keepdims=0),
        builders.node("Add", ["top", "mask"], ["m"], name="masked"),
    ]
    inputs: dict[str, builders.Value] = {"x": ["N", 2, 5, 5], "factor": [1]}
    return builders.model(nodes, inputs, {"y": ["N", 7], "m": [300]}, constants)


@cache
def program() -> Program:
    spec = builders.chip(rows=16, cols=6)
    return pcmc.compile(model(), spec, freeze={"factor": [2.0]}, check=True)


@cache
def saved() -> bytes:
    return bytes_of(program())


def bytes_of(one: Program) -> bytes:
    """The program file of a program, written through the public way into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        one.save(Path(folder, "a.pcmc"))
        return Path(folder, "a.pcmc").read_bytes()


def members_of(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: Members) -> bytes:
    """A zip of members as pcmc writes it; hashes in program.json are made to fit."""
    document = json.loads(members["program.json"])
    if isinstance(document, dict) and isinstance(document.get("members"), dict):
        for name in document["members"].keys() & members.keys():
            document["members"][name] = hashlib.sha256(members[name]).hexdigest()
        members = {**members, "program.json": json.dumps(document).encode()}
    return zipped(members)


def zipped(members: Members, change: Callable[[zipfile.ZipFile], None] | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        if change is not None:
            change(archive)
    return buffer.getvalue()


def with_document(change: Callable[[dict[str, Any]], None]) -> bytes:
    members = members_of(saved())
    document = json.loads(members["program.json"])
    change(document)
    return zipped({**members, "program.json": json.dumps(document).encode()})


def with_member(name: str, data: bytes) -> bytes:
    return packed({**members_of(saved()), name: data})


def load_bytes(data: bytes, folder: Path) -> Program:
    path = folder / "a.pcmc"
    path.write_bytes(data)
    return pcmc.load(path)


def refused(data: bytes, folder: Path, match: str = "") -> None:
    """Loading is refused with ProgramError, in one line that names the file."""
    with pytest.raises(ProgramError, match=match or None) as caught:
        load_bytes(data, folder)
    assert "a.pcmc" in str(caught.value)
    assert "\n" not in str(caught.value)


def run(one: Program) -> list[Any]:
    return builders.run(one, {"x": builders.rng(9).standard_normal((3, 2, 5, 5)).astype(np.float32)})


# Whole files come back.


def test_loaded_program_computes_and_reports_the_same(tmp_path):
    loaded = load_bytes(saved(), tmp_path)
    assert loaded.report() == program().report()
    for ours, theirs in zip(run(loaded), run(program()), strict=True):
        assert np.array_equal(ours, theirs)
    assert loaded.inputs == program().inputs
    assert loaded.steps == program().steps
    assert loaded.chip == program().chip
    assert loaded.model.SerializeToString(deterministic=True) == program().model.SerializeToString(
        deterministic=True
    )


def test_saved_again_it_is_the_same_file(tmp_path):
    assert bytes_of(load_bytes(saved(), tmp_path)) == saved()


def test_compiled_again_it_is_the_same_file():
    again = pcmc.compile(model(), builders.chip(rows=16, cols=6), freeze={"factor": [2.0]})
    assert bytes_of(again) == saved()


def test_loaded_arrays_are_read_only(tmp_path):
    loaded = load_bytes(saved(), tmp_path)
    for bank in loaded.banks.values():
        assert not bank.cells.flags.writeable
        assert not bank.table.flags.writeable
    assert not loaded.flows.flags.writeable


def test_large_constants_are_stored_once():
    names = [name for name in members_of(saved()) if name.startswith("tensors/")]
    assert (
        len(names) == len(set(names)) == 2
    )  # the dense matrix and the mask, though three models hold the mask
    assert len(saved()) < 40_000


# Damaged files.


def test_a_file_cut_anywhere_is_refused(tmp_path):
    data = saved()
    lengths = sorted(
        {*range(0, 200, 7), *range(0, len(data), len(data) // 100), *range(len(data) - 60, len(data))}
    )
    for length in lengths:
        with pytest.raises(ProgramError):
            load_bytes(data[:length], tmp_path)


@pytest.mark.slow
@settings(max_examples=200)
@given(st.data())
def test_flipped_bits_are_refused_or_change_nothing(tmp_path_factory, data):
    damaged = bytearray(saved())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    same_or_refused(bytes(damaged), tmp_path_factory.getbasetemp())


@settings(max_examples=100)
@given(st.data())
def test_inserted_and_deleted_bytes_are_refused_or_change_nothing(tmp_path_factory, data):
    start = data.draw(st.integers(0, len(saved())))
    end = data.draw(st.integers(start, min(len(saved()), start + 20)))
    damaged = saved()[:start] + data.draw(st.binary(max_size=20)) + saved()[end:]
    same_or_refused(damaged, tmp_path_factory.getbasetemp())


def same_or_refused(damaged: bytes, folder: Path) -> None:
    try:
        loaded = load_bytes(damaged, folder)
    except ProgramError:
        return
    assert bytes_of(loaded) == saved()


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_any_bytes_are_refused(tmp_path_factory, data):
    with pytest.raises(ProgramError):
        load_bytes(data, tmp_path_factory.getbasetemp())


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(ProgramError, match=r"none\.pcmc: no such file"):
        pcmc.load(tmp_path / "none.pcmc")
    with pytest.raises(ProgramError, match="is a folder"):
        pcmc.load(tmp_path)
    os.mkfifo(tmp_path / "pipe.pcmc")
    with pytest.raises(ProgramError, match="not a regular file"):
        pcmc.load(tmp_path / "pipe.pcmc")
    with pytest.raises(ProgramError, match="not a pcmc program file"):
        pcmc.load("a\0b.pcmc")


def test_later_and_missing_schemas_are_refused(tmp_path):
    refused(
        with_document(lambda d: d.update(schema=2)),
        tmp_path,
        "schema 2, this pcmc reads up to 1: update pcmc",
    )
    for wrong in (0, -1, "1", None, 1.5):
        refused(with_document(lambda d, wrong=wrong: d.update(schema=wrong)), tmp_path, "schema")
    refused(with_document(lambda d: d.update(format="pcmc chip")), tmp_path, "is not a pcmc program file")


# Hostile archives.


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "a/../../evil", "a//b", "./a", "a\\b", "a/", "..", "banks/."]
)
def test_names_that_lead_outside_are_refused(name, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    refused(zipped({**members_of(saved()), name: b"evil"}), folder, "leads outside")
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "a.pcmc"]


def test_compressed_members_are_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members_of(saved()).items():
            archive.writestr(name, data)
        archive.writestr("bomb", bytes(50_000_000))
    assert len(buffer.getvalue()) < 200_000
    refused(buffer.getvalue(), tmp_path, "is compressed")

    def relabel(archive: zipfile.ZipFile) -> None:
        archive.getinfo("flows.npy").compress_type = zipfile.ZIP_DEFLATED

    refused(zipped(members_of(saved()), relabel), tmp_path, "is compressed")


def test_members_that_overlap_are_refused(tmp_path):
    def overlap(archive: zipfile.ZipFile) -> None:
        largest = max(archive.filelist, key=lambda info: info.file_size)
        for index in range(50):
            twin = copy.copy(largest)
            twin.filename = f"twin{index}"
            archive.filelist.append(twin)

    refused(zipped(members_of(saved()), overlap), tmp_path, "would unpack to")


@pytest.mark.parametrize("size", [10**9, 2**33, 2**62])
def test_members_that_claim_to_be_larger_than_the_file_are_refused(size, tmp_path):
    def grow(archive: zipfile.ZipFile) -> None:
        info = archive.getinfo("flows.npy")
        info.file_size = info.compress_size = size

    refused(zipped(members_of(saved()), grow), tmp_path, "would unpack to")


def test_two_members_of_one_name_are_refused(tmp_path):
    def double(archive: zipfile.ZipFile) -> None:
        archive.filelist.append(copy.copy(archive.getinfo("flows.npy")))

    refused(zipped(members_of(saved()), double), tmp_path, "two members of one name")


def test_encrypted_members_are_refused(tmp_path):
    def encrypt(archive: zipfile.ZipFile) -> None:
        for info in archive.filelist:
            info.flag_bits |= 1

    refused(zipped(members_of(saved()), encrypt), tmp_path, "encrypted")


def test_altered_missing_and_unlisted_members_are_refused(tmp_path):
    members = members_of(saved())
    for name in sorted(members.keys() - {"program.json"}):
        refused(zipped({**members, name: members[name] + b" "}), tmp_path, "was altered")
        refused(
            zipped({key: data for key, data in members.items() if key != name}), tmp_path, "missing|no item"
        )
        refused(with_document(lambda d, name=name: d["members"].pop(name)), tmp_path, "is missing")
    refused(zipped({"a": b""}), tmp_path, "program.json")


def test_shared_tensors_may_not_grow_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(program_file, "MOST_SHARED_BYTES", 0)
    heavy = onnx.ModelProto()
    heavy.ParseFromString(members_of(saved())["model.onnx"])
    member = next(t for t in heavy.graph.initializer if t.data_location == TensorProto.EXTERNAL)
    for index in range(2000):
        twin = heavy.graph.initializer.add()
        twin.CopyFrom(member)
        twin.name = f"twin{index}"
    refused(with_member("model.onnx", heavy.SerializeToString()), tmp_path, "grow without end")


# Hostile arrays.


def npy(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() + b"\n"
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text + data


CELLS = "banks/0/cells.npy"
FLOAT = "{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
ARRAYS = {
    "pickled objects": npy(
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n(S'false'\ntR."
    ),
    "other type": npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(8)),
    "big endian": npy("{'descr': '>f4', 'fortran_order': False, 'shape': (1,), }", bytes(4)),
    "Fortran order": npy("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", bytes(8)),
    "huge shape": npy(FLOAT % 10**15, bytes(8)),
    "shape beyond 64 bits": npy(FLOAT % 10**30, bytes(8)),
    "negative shape": npy(FLOAT % -7, bytes(8)),
    "shape of 10,000 digits": npy(FLOAT % ("1" * 9000), bytes(8)),
    "too little data": npy(FLOAT % 4, bytes(12)),
    "two dimensions": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }", bytes(4)),
    "no cells": npy(FLOAT % 0),
    "version 2": npy(FLOAT % 1, bytes(4), b"\x02\x00"),
    "version 9": npy(FLOAT % 1, bytes(4), b"\x09\x00"),
    "code for a header": npy("__import__('os').abort()"),
    "unclosed header": npy("{'descr': ("),
    "nested header": npy("(" * 9000),
    "deep header": npy("-" * 9000 + "1"),
    "header without an end": b"\x93NUMPY\x01\x00\xff\xff{",
    "no magic": b"hello",
    "nothing": b"",
    "infinite weights": npy(FLOAT % 1, np.array([np.inf], "<f4").tobytes()),
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_not_what_they_should_be_are_refused(kind, tmp_path):
    refused(with_member(CELLS, ARRAYS[kind]), tmp_path)


def test_a_shape_that_is_not_that_of_the_data_is_refused(tmp_path):
    cells = program().banks["conv"].cells
    for shape in (f"{cells.size - 1},", f"1, {cells.size}", f"{cells.size}, 1", f"{cells.size + 1},", ""):
        header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }"
        refused(with_member(CELLS, npy(header, cells.tobytes())), tmp_path)
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + f"{cells.size},), " + "}"
    assert bytes_of(load_bytes(with_member(CELLS, npy(header, cells.tobytes())), tmp_path)) == saved()


def test_header_of_objects_never_reaches_pickle(tmp_path):
    marker = tmp_path / "ran"
    evil = b"cos\nsystem\n(S'touch " + os.fsencode(marker) + b"'\ntR."
    refused(
        with_member(CELLS, npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", evil)),
        tmp_path,
        r"\|O|object",
    )
    assert not marker.exists()


# Hostile models.


def test_regions_with_external_data_or_unknown_domains_are_refused(tmp_path):
    outside = onnx.ModelProto()
    outside.ParseFromString(members_of(saved())["regions/0.onnx"])
    tensor = outside.graph.initializer.add(name="t", data_type=TensorProto.FLOAT, dims=[1])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    refused(
        with_member("regions/0.onnx", outside.SerializeToString()), tmp_path, "hostname' is missing|no item"
    )
    custom = onnx.ModelProto()
    custom.ParseFromString(members_of(saved())["regions/0.onnx"])
    custom.graph.node[0].domain = "evil"
    refused(with_member("regions/0.onnx", custom.SerializeToString()), tmp_path, "unknown domain")
    refused(with_member("regions/0.onnx", b"\xff" * 40), tmp_path, "is not an ONNX model")


def test_region_that_onnxruntime_does_not_take_is_refused(tmp_path):
    wrong = helper.make_model(helper.make_graph([builders.node("NoSuchOperator", ["x"], ["y"])], "g", [], []))
    loaded = load_bytes(with_member("regions/0.onnx", wrong.SerializeToString()), tmp_path)
    with pytest.raises(ProgramError, match="onnxruntime does not take it"):
        pcmc.Session(loaded)


# Hostile program.json.


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"1",
        b'"pcmc program"',
        b"{",
        b"{}",
        b"\xff\xfe",
        b"[" * 200_000,
        b'{"a":' * 200_000,
        b"1" * 100_000,
        b'{"format": "pcmc program", "schema": NaN}',
        b'{"format": "pcmc program", "schema": 1}',
        b'{"format": "pcmc program", "schema": 1' + b"0" * 5000 + b"}",
    ],
)
def test_documents_of_another_kind_are_refused(text, tmp_path):
    refused(zipped({**members_of(saved()), "program.json": text}), tmp_path)


def test_a_huge_document_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(program_file, "MAX_JSON_BYTES", 1000)
    refused(saved(), tmp_path, "at most 1,000 are read")


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every value in a document, inner nodes too."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(inner, (*path, key))


@cache
def document() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(members_of(saved())["program.json"])
    return loaded


def mutated(path: tuple[Any, ...], value: Any) -> bytes:
    changed = copy.deepcopy(document())
    place: Any = changed
    for key in path[:-1]:
        place = place[key]
    if value is DROPPED:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return zipped({**members_of(saved()), "program.json": json.dumps(changed).encode()})


DROPPED = object()
WRONG = [
    DROPPED,
    None,
    True,
    -1,
    0,
    1,
    3,
    2**31,
    2**63,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    -1e308,
    "",
    "x",
    "../x",
    "\0",
    [],
    [1],
    ["x"],
    [[]],
    [2**40] * 4,
    {},
    {"x": 1},
    [None],
]


def survives(data: bytes, folder: Path) -> None:
    """Load, report and run, each with a clear error at most."""
    with contextlib.suppress(ProgramError):
        loaded = load_bytes(data, folder)
        for use in (Program.report, run, lambda one: pcmc.Session(one, "full")):
            with contextlib.suppress(PcmcError):
                use(loaded)


@pytest.mark.slow
@settings(max_examples=150)
@given(st.sampled_from(sorted(leaves(document()), key=str)), st.sampled_from(WRONG))
def test_a_wrong_value_anywhere_in_the_document_is_one_clear_error(tmp_path_factory, path, value):
    survives(mutated(path, value), tmp_path_factory.getbasetemp())


@pytest.mark.slow
@settings(max_examples=100)
@given(st.data())
def test_damage_under_hashes_that_fit_is_one_clear_error(tmp_path_factory, data):
    """A stranger can compute hashes: what they protect from is accidents alone."""
    members = members_of(saved())
    name = data.draw(st.sampled_from(sorted(members.keys() - {"program.json"})))
    damaged = bytearray(members[name])
    start = data.draw(st.integers(0, len(damaged)))
    end = data.draw(st.integers(start, min(len(damaged), start + 8)))
    damaged[start:end] = data.draw(st.binary(max_size=8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # numpy's, of headers that look like those of Python 2
        survives(packed({**members, name: bytes(damaged)}), tmp_path_factory.getbasetemp())


@pytest.mark.slow
def test_wrong_values_everywhere_in_the_document_take_little_memory(tmp_path):
    """A fifth of the wrong values in every place, another fifth in the next."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index, path in enumerate(leaves(document())):
        for value in WRONG[index % 5 :: 5]:
            survives(mutated(path, value), tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # in KiB


# Writing.


@pytest.mark.slow
def test_killed_save_leaves_the_old_file_and_no_new_one(tmp_path):
    path = tmp_path / "a.pcmc"
    path.write_bytes(saved())
    slow = (
        "import sys, time, os, pcmc\n"
        "one = pcmc.load(sys.argv[1])\n"
        "def wait(_):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
        "os.fsync = wait\n"
        "one.save(sys.argv[2])\n"
    )
    for target in (path, tmp_path / "new.pcmc"):
        child = subprocess.Popen([sys.executable, "-c", slow, str(path), str(target)], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert path.read_bytes() == saved()
    assert not (tmp_path / "new.pcmc").exists()
    assert [p.name for p in tmp_path.glob("*.pcmc")] == ["a.pcmc"]
