"""Checkpoints: training goes on from one as if nothing had happened; anything else is refused in one line."""

from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import io
import json
import os
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import mlp
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import pcmc
from pcmc.errors import DataError, OutputError, ProgramError
from pcmc.runtime.program import Program
from pcmc.runtime.trainer.progress import Progress
from pcmc.runtime.trainer.trainer import Trainer

from .nets import convolutional, dense_program, spread_classes

SETTINGS: dict[str, Any] = {"lr": 0.05, "seed": 4}


@cache
def program() -> Program:
    return dense_program()


def trainer(**other: Any) -> Trainer:
    return Trainer(program(), **SETTINGS | other)


@cache
def data() -> tuple[Any, Any]:
    return spread_classes(150, 12, 4)


@cache
def good() -> bytes:
    """A checkpoint after an epoch, as bytes."""
    trained = trainer()
    trained.fit(*data(), epochs=1, validation=data())
    return saved(trained)


def saved(trained: Trainer) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        trained.save(path)
        return path.read_bytes()


def parts(file: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(members.pop("checkpoint.json")), members


def forged(document: Any, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A file that is sound as a zip, with the hashes of its members as they are."""
    if isinstance(document, dict) and isinstance(document.get("members"), dict):
        document["members"] |= {name: hashlib.sha256(part).hexdigest() for name, part in members.items()}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("checkpoint.json", json.dumps(document))
        for name, part in members.items():
            archive.writestr(name, part)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def refusal(tmp_path: Path, file: bytes, resuming: Trainer | None = None) -> str:
    """What a trainer says to a file; afterwards it is as before."""
    path = tmp_path / "state"
    path.write_bytes(file)
    resuming = resuming or trainer()
    before = saved(resuming)
    with pytest.raises(ProgramError) as caught:
        resuming.resume(path)
    assert parts(saved(resuming)) == parts(before)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert len(message) < 1000
    return message.removeprefix(f"{path}: ")


# --- going on ---


@pytest.mark.parametrize("physics", ["ideal", "full"])
@pytest.mark.parametrize("net", ["dense", "convolutional"])
def test_a_training_saved_within_an_epoch_goes_on_as_if_nothing_had_happened(tmp_path, net, physics):
    if net == "dense":
        compiled, (x, y) = program(), spread_classes(5000, 12, 4)
    else:
        compiled = pcmc.compile(convolutional())
        x, y = spread_classes(300, 64, 3)
        x = x.reshape(-1, 1, 8, 8)
    how: dict[str, Any] = {"physics": physics, "decay": 0.8, **SETTINGS}
    through = Trainer(compiled, **how)
    states: list[bytes] = []

    def note(progress: Progress) -> None:
        if progress.examples < progress.of:
            states.append(saved(through))

    history = through.fit(x, y, epochs=2, on_progress=note)
    state = parts(states[-1])[0]["running"]
    assert state["epoch"] == 1
    assert 0 < state["position"] < len(x)
    (tmp_path / "state").write_bytes(states[-1])
    second = Trainer(compiled, **how)
    second.resume(tmp_path / "state")
    again = second.fit(x, y, epochs=2)
    for name in compiled.banks:
        np.testing.assert_array_equal(through.program.banks[name].cells, second.program.banks[name].cells)
    assert [(e.loss, e.accuracy, e.counters) for e in again.epochs] == [
        (e.loss, e.accuracy, e.counters) for e in history.epochs
    ]
    assert second.counters() == through.counters()
    assert second.examples == through.examples


def test_velocities_digital_biases_and_running_statistics_are_kept(tmp_path):
    from builders import chip, model, node, weights

    net = model(
        [
            node("Conv", ["x", "k", "kb"], ["c"], name="conv"),
            node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n", "mo", "vo"], training_mode=1),
            node("Flatten", ["n"], ["f"]),
            node("Gemm", ["f", "w", "wb"], ["y"], name="dense"),
        ],
        {"x": ["N", 1, 4, 4]},
        {"y": ["N", 3]},
        {
            "k": weights(2, 1, 3, 3),
            "kb": weights(2),
            "s": np.ones(2, np.float32),
            "b": np.zeros(2, np.float32),
            "m": np.zeros(2, np.float32),
            "v": np.ones(2, np.float32),
            "w": weights(8, 3),
            "wb": weights(3),
        },
    )
    compiled = pcmc.compile(net, chip(513, 100, bias_row=False))
    x, y = spread_classes(40, 16, 3)
    x = x.reshape(-1, 1, 4, 4)
    how: dict[str, Any] = {"physics": "ideal", "batch": 8, "momentum": 0.9, "lr": 0.05}
    through = Trainer(compiled, **how)
    through.fit(x, y, epochs=1, checkpoint=tmp_path / "state")
    through.fit(x, y, epochs=2)
    second = Trainer(compiled, **how)
    second.resume(tmp_path / "state")
    second.fit(x, y, epochs=2)
    wanted, found = through.state()[1], second.state()[1]
    assert {name.split("/")[0] for name in wanted} == {"bank", "bias", "velocity", "statistics"}
    assert wanted.keys() == found.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_within_an_epoch_the_state_is_kept_every_so_often(tmp_path):
    compiled, (x, y) = program(), spread_classes(5000, 12, 4)
    path, positions = tmp_path / "state", []

    def note(progress: Progress) -> None:
        if path.exists():
            positions.append(parts(path.read_bytes())[0]["running"]["position"])

    Trainer(compiled, **SETTINGS).fit(x, y, checkpoint=path, checkpoint_every=0, on_progress=note)
    assert positions == [2000, 4000, 5000]
    positions.clear()
    path.unlink()
    Trainer(compiled, **SETTINGS).fit(x, y, checkpoint=path, checkpoint_every=1e9, on_progress=note)
    assert positions == []
    assert parts(path.read_bytes())[0]["running"]["epoch"] == 1


def test_a_training_does_not_go_on_with_other_examples(tmp_path):
    path = tmp_path / "state"
    path.write_bytes(good())
    x, y = data()
    for other in ((x[:-1], y[:-1]), (x + 1, y), (x, (y + 1) % 4)):
        resuming = trainer()
        resuming.resume(path)
        with pytest.raises(DataError, match="other training examples than those of the checkpoint"):
            resuming.fit(*other, epochs=2)


# --- full disks and losses ---


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "state"
    trained = trainer()
    trained.fit(*data(), epochs=1, checkpoint=path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"state: can't be written: No space left on device"):
        trained.fit(*data(), epochs=2, checkpoint=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_are_not_finite_never_replace_a_good_checkpoint(tmp_path):
    compiled, (x, y) = dense_program(activation="Relu"), spread_classes(200, 12, 4)
    path = tmp_path / "state"
    path.write_bytes(b"good")
    history = Trainer(compiled, lr=1e6, physics="ideal").fit(x * 1e6, y, epochs=5, checkpoint=path)
    assert history.ended == "diverged"
    assert path.read_bytes() == b"good"


# --- what is no checkpoint of this training ---


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"lr": 0.04}, "is a checkpoint of a training with lr = 0.05, this one has 0.04: give the same"),
        ({"seed": 5}, "seed = 4, this one has 5"),
        ({"decay": 0.5}, "decay = 1.0, this one has 0.5"),
        ({"physics": "ideal"}, "physics = "),
        ({"loss": "mse"}, "loss = 'cross_entropy', this one has 'mse'"),
        ({"layers": ["dense1"]}, "layers = "),
        ({"batch": 2}, "batch = 1, this one has 2"),
        ({"weight_range": 2.0}, "weight_range = None, this one has 2.0"),
        ({"mode": "noise-aware", "physics": "ideal"}, "physics = "),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, other, message):
    assert message in refusal(tmp_path, good(), trainer(**other))


def test_a_checkpoint_of_another_model_or_chip_is_refused(tmp_path):
    other_weights = pcmc.compile(mlp((12, 9, 4), activation="Tanh", seed=1))
    other_size = dense_program((12, 8, 4))
    other_activation = dense_program(activation="Relu")
    for other in (other_weights, other_size, other_activation):
        assert "is a checkpoint of another program" in refusal(tmp_path, good(), Trainer(other, **SETTINGS))


@given(
    data=st.data(),
    kind=st.sampled_from(["flip", "cut", "insert", "random"]),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_changed_on_the_way_are_refused(tmp_path, data, kind):
    file = bytearray(good())
    at = data.draw(st.integers(0, len(file) - 1))
    if kind == "flip":
        file[at] ^= data.draw(st.integers(1, 255))
    elif kind == "cut":
        del file[at:]
    elif kind == "insert":
        file[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        file[:] = data.draw(st.binary(max_size=200))
    path = tmp_path / "state"
    path.write_bytes(file)
    resuming = trainer()
    try:
        resuming.resume(path)
    except ProgramError:
        return
    # some bytes of a zip mean nothing (times, attributes): then all that was read is as it was written
    wanted, found = parts(good()), parts(saved(resuming))
    assert found == wanted


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(path for key, part in inner for path in paths(part, (*at, key)))]


STRANGE: list[Any] = [None, True, -1, 1 << 70, 1e308, float("nan"), "", "a" * 300, [], {}, [[]], 10**400]


@given(data=st.data(), strange=st.sampled_from(STRANGE) | st.integers() | st.floats() | st.text(max_size=5))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(data=None, strange=None)
def test_documents_that_somebody_made_up_never_crash(tmp_path, data, strange):
    document, members = parts(good())
    document = copy.deepcopy(document)
    if data is not None:
        *path, last = data.draw(st.sampled_from([path for path in paths(document) if path]))
        holder = document
        for key in path:
            holder = holder[key]
        if data.draw(st.booleans()):
            del holder[last]
        else:
            holder[last] = strange
    path = tmp_path / "state"
    path.write_bytes(forged(document, members))
    resuming = trainer()
    try:
        resuming.resume(path)
    except ProgramError:
        return
    with contextlib.suppress(DataError):  # the document says that they are other data
        resuming.fit(*spread_classes(150, 12, 4), epochs=2)


HUGE = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }".ljust(117) + b"\n"
)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (npy(np.zeros(3, np.float32)), "array 'bank/dense0/weights' is float32 [3], should be float32 ["),
        (npy(np.zeros(3, np.float64)), "is float64 [3]"),
        (npy(np.array([{}], object)), "is of type object, should be plain numbers"),
        (npy(np.zeros((2, 2), np.float32, order="F")), "should be plain numbers in C order"),
        (HUGE, "is no checkpoint, or damaged"),
        (b"", "is no checkpoint, or damaged"),
        (b"\x93NUMPY\x02\x00", "is .npy version (2, 0), should be (1, 0)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, array, message):
    document, members = parts(good())
    members[document["arrays"]["bank/dense0/weights"]] = array
    assert message in refusal(tmp_path, forged(document, members))


def test_weights_that_are_not_numbers_are_refused(tmp_path):
    document, members = parts(good())
    member = document["arrays"]["bank/dense0/weights"]
    weights = np.load(io.BytesIO(members[member]))
    weights[5] = np.nan
    members[member] = npy(weights)
    assert "array 'bank/dense0/weights' has values that are not finite" in refusal(
        tmp_path, forged(document, members)
    )


def test_an_array_that_was_altered_is_refused(tmp_path):
    document, members = parts(good())
    wrong = dict(members)
    name = document["arrays"]["bank/dense1/weights"]
    wrong[name] = members[name][:-1] + bytes([members[name][-1] ^ 1])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("checkpoint.json", json.dumps(document))
        for key, part in wrong.items():
            archive.writestr(key, part)
    assert f"'{name}' was altered: its hash is not the one" in refusal(tmp_path, buffer.getvalue())


def test_compressed_and_missing_members_are_refused(tmp_path):
    document, members = parts(good())
    bomb = forged(document, members | {"bomb.npy": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    assert "its members are compressed" in refusal(tmp_path, bomb)
    members.pop(document["arrays"]["bank/dense0/low"])
    assert "is no checkpoint, or damaged" in refusal(tmp_path, forged(document, members))
    assert "it has no checkpoint.json" in refusal(tmp_path, _zip({"other.json": b"{}"}))


def test_members_that_lie_over_each_other_are_refused(tmp_path):
    """A zip whose directory names the same bytes again and again unpacks to more than it has."""
    file = _zip({"checkpoint.json": b"{}", "a.npy": bytes(4000)})
    at = file.index(b"PK\x01\x02", file.index(b"a.npy"))
    at = file.index(b"PK\x01\x02", at + 4) if file[at + 46 : at + 51] != b"a.npy" else at
    end = file.index(b"PK\x05\x06")
    entry, tail = file[at:end], bytearray(file[end:])
    count, size = 500, (end - file.index(b"PK\x01\x02")) + 498 * len(entry)
    tail[8:12] = count.to_bytes(2, "little") * 2
    tail[12:16] = size.to_bytes(4, "little")
    message = refusal(tmp_path, file[:end] + entry * 498 + bytes(tail))
    assert "would unpack to more: the file is hostile" in message


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, part in members.items():
            archive.writestr(name, part)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "is no checkpoint of pcmc"),
        ({"format": "other"}, "is no checkpoint of pcmc"),
        ({"format": "pcmc checkpoint", "schema": 2}, "has schema 2, this version reads 1"),
        ({"format": "pcmc checkpoint", "schema": 1}, "is no checkpoint, or damaged"),
    ],
)
def test_files_of_something_else_are_refused(tmp_path, document, message):
    assert message in refusal(tmp_path, forged(document, {}))


def test_folders_and_missing_files_are_refused(tmp_path):
    for path, message in ((tmp_path, "is not a regular file"), (tmp_path / "no", "no such file")):
        with pytest.raises(ProgramError, match=message):
            trainer().resume(path)
