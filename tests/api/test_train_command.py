"""`pcmc train`: what it writes, says and refuses, and what is left when it is interrupted or killed."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from builders import mlp
from numpy.typing import NDArray
from onnx import numpy_helper

from pcmc.models import datasets, networks, zoo

Array = NDArray[Any]
Command = Callable[..., str]


@cache
def digits() -> tuple[Array, Array, Array, Array]:
    """Some of the digits that ship: training images and labels, test images and labels."""
    x, y, x_test, y_test = datasets.digits()
    return x[:200], y[:200], x_test[:100], y_test[:100]


def write_digits(path: str = "d.npz", **other: Any) -> str:
    x, y, x_test, y_test = digits()
    arrays = {"x": x.reshape(-1, 64), "y": y, "x_test": x_test.reshape(-1, 64), "y_test": y_test}
    np.savez(path, **{name: array for name, array in {**arrays, **other}.items() if array is not None})
    return path


def write_net(path: str = "net.onnx", sizes: tuple[int, ...] = (64, 20, 10)) -> str:
    onnx.save(networks.perceptron(sizes, seed=1), path)
    return path


def weights(path: str | Path) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def accuracy(path: str, x: Array, y: Array) -> float:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x})
    return float((found.argmax(axis=1) == y).mean())


# --- what it writes and says ---


def test_a_network_from_fresh_weights_learns_and_onnxruntime_finds_what_the_command_said(done):
    args = ("--epochs", 10, "--lr", 0.03, "--weight-range", 2)
    text = done("train", write_net(), "--data", write_digits(), *args, "-o", "out.onnx")
    found = accuracy("out.onnx", digits()[2].reshape(-1, 64), digits()[3])
    assert found > 0.8
    assert f"  exported weights in onnxruntime  {found:.2%}\n" in text
    assert "100 test examples:\n  on the chip " in text
    assert "  PCM pairs alone " in text
    assert "2,000 examples trained on, physics: dac, adc, programming_error, read_noise, pulses, " in text
    assert text.endswith("written to out.onnx\n")
    lines = [line for line in text.splitlines() if line.startswith("epoch")]
    assert len(lines) == 10
    assert re.fullmatch(
        r"epoch   1  rate 0\.03  loss \d\.\d{4}  accuracy \d\d\.\d\d%  test loss \d\.\d{4}  "
        r"test accuracy \d\d\.\d\d%  \d+\.\d s",
        lines[0],
    )


@pytest.mark.parametrize("name", ["digits-mlp", "digits-cnn"])
@pytest.mark.parametrize("physics", ["ideal", "full"])
def test_shipped_models_are_trained_and_keep_their_graph(done, name, physics):
    x, y, x_test, y_test = digits()
    np.savez("d.npz", x=x[:60], y=y[:60], x_test=x_test[:50], y_test=y_test[:50])
    facts = json.loads(
        done("train", name, "--data", "d.npz", "--epochs", 1, "--lr", 0.01, "--physics", physics, "--json")
    )
    assert facts["output"] == f"{name}-trained.onnx"
    assert facts["accuracy_exported"] == accuracy(facts["output"], x_test[:50], y_test[:50])
    assert facts["accuracy_exported"] > 0.9
    before, after = onnx.load(zoo.path(name)), onnx.load(facts["output"])
    assert [node.name for node in after.graph.node] == [node.name for node in before.graph.node]
    assert after.opset_import == before.opset_import
    assert weights(zoo.path(name)).keys() == weights(facts["output"]).keys()


def test_ideal_mode_says_what_onnxruntime_says(done):
    args = ("--data", write_digits(), "--epochs", 2, "--lr", 0.1, "--physics", "ideal", "--json")
    facts = json.loads(done("train", write_net(), *args))
    assert facts["accuracy_on_chip"] == facts["accuracy_exported"]
    assert facts["accuracy_pair_alone"] is None
    assert facts["physics"] == []
    assert facts["fast_path"] is True


def test_json_has_the_epochs_and_the_counters(done):
    facts = json.loads(done("train", write_net(), "--data", write_digits(), "--epochs", 2, "--json"))
    assert [epoch["epoch"] for epoch in facts["epochs"]] == [0, 1]
    assert facts["epochs"][1]["rate"] == pytest.approx(0.009)
    assert facts["ended"] == "done"
    assert facts["stopped"] == ""
    assert facts["examples"] == 400
    assert facts["tested"] is True
    assert facts["samples"] == 100
    assert facts["counters"]["layer1"]["pulses_up"] > 0


def test_the_log_gets_a_line_for_each_epoch(done):
    done("train", write_net(), "--data", write_digits(), "--epochs", 3, "--log", "log.jsonl")
    lines = [json.loads(line) for line in Path("log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    assert lines[0].keys() == {"epoch", "rate", "loss", "accuracy", "validation", "seconds", "counters"}
    assert lines[2]["validation"]["examples"] == 100


def test_one_seed_gives_one_file(done):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        args = ("--data", write_digits(), "--epochs", 1, "--seed", seed, "-o", f"{name}.onnx")
        done("train", write_net(), *args)
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    assert Path("a.onnx").read_bytes() != Path("c.onnx").read_bytes()


def test_only_the_layers_named_are_trained(done):
    net = write_net(sizes=(64, 20, 15, 10))
    args = ("--data", write_digits(), "--epochs", 1, "--physics", "ideal")
    done("train", net, *args, "--train-layers", "layer1,layer3", "-o", "out.onnx")
    before, after = weights(net), weights("out.onnx")
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same == {"layer2.weight", "layer2.bias"}


def test_a_new_head_is_trained_alone(done):
    x, y, x_test, y_test = digits()
    np.savez("d.npz", x=x, y=y % 3, x_test=x_test, y_test=y_test % 3)
    args = ("--head", 3, "--epochs", 6, "--lr", 0.01, "--weight-range", 2)
    done("train", "digits-cnn", "--data", "d.npz", *args, "-o", "out.onnx")
    graph = onnx.load("out.onnx").graph
    assert [dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim][1:] == [3]
    before, after = weights(zoo.path("digits-cnn")), weights("out.onnx")
    for name in before.keys() & after.keys():
        np.testing.assert_array_equal(before[name], after[name])
    assert after.keys() - before.keys() == {"head.weight", "head.bias"}
    assert accuracy("out.onnx", x_test, y_test % 3) > 0.9


def test_a_new_head_goes_where_it_is_told(done, refused):
    conv = next(node for node in onnx.load(zoo.path("digits-cnn")).graph.node if node.op_type == "Conv")
    inner = conv.output[0]
    x, y, _, _ = digits()
    np.savez("d.npz", x=x[:40], y=y[:40])
    args = ("train", "digits-cnn", "--data", "d.npz", "--epochs", 1)
    done(*args, "--head", 10, "--head-after", inner, "-o", "out.onnx")
    assert [node.op_type for node in onnx.load("out.onnx").graph.node] == ["Conv", "Flatten", "Gemm"]
    assert "needs --head N" in refused(*args, "--head-after", inner)
    assert "has no tensor 'nowhere'" in refused(*args, "--head", 10, "--head-after", "nowhere")


def test_regression_with_mse_has_no_accuracy(done):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 6)).astype(np.float32)
    np.savez("d.npz", x=x, y=np.stack([x[:, 0], -x[:, 1]], axis=1))
    onnx.save(mlp((6, 5, 2)), "net.onnx")
    args = ("train", "net.onnx", "--data", "d.npz", "--loss", "mse", "--epochs", 2)
    assert "accuracy" not in done(*args)
    facts = json.loads(done(*args, "--json"))
    assert facts["accuracy_exported"] is None
    assert facts["epochs"][1]["loss"] < facts["epochs"][0]["loss"]
    assert facts["tested"] is False


# --- going on ---


def test_a_resumed_training_writes_the_same_model_as_one_that_went_through(done):
    args = ("train", write_net(), "--data", write_digits(), "--lr", 0.05)
    done(*args, "--epochs", 4, "-o", "through.onnx")
    done(*args, "--epochs", 2, "--checkpoint", "state")
    text = done(*args, "--epochs", 4, "--checkpoint", "state", "--resume", "-o", "resumed.onnx")
    assert "resumed after 400 examples" in text
    assert Path("through.onnx").read_bytes() == Path("resumed.onnx").read_bytes()


def test_resume_starts_anew_where_there_is_nothing_yet(done):
    args = ("train", write_net(), "--data", write_digits(), "--epochs", 1, "--checkpoint", "state")
    assert "resumed" not in done(*args, "--resume")
    assert Path("state").exists()


def test_a_checkpoint_of_something_else_is_one_line(done, refused, run):
    args = (
        "train",
        write_net(),
        "--data",
        write_digits(),
        "--epochs",
        1,
        "--checkpoint",
        "state",
        "--resume",
    )
    done(*args)
    good = Path("state").read_bytes()
    assert refused(*args, "--lr", 0.5).startswith("state: is a checkpoint of a training with lr = 0.01, this")
    assert "another program" in refused("train", write_net("other.onnx", (64, 9, 10)), *args[2:])
    other = run(*args, "--epochs", 2, "--data", write_digits("e.npz", y=digits()[1][::-1]))
    assert other.code == 2
    assert other.err.startswith("pcmc: these are other training examples than those of the checkpoint")
    for damaged in (
        good[:-100],
        good[: len(good) // 2] + b"x" + good[len(good) // 2 + 1 :],
        b"PK\x03\x04",
        b"",
    ):
        Path("state").write_bytes(damaged)
        assert refused(*args).startswith("state: ")
        assert Path("state").read_bytes() == damaged


def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(done, run, monkeypatch):
    args = ("train", write_net(), "--data", write_digits(), "--checkpoint", "state")
    done(*args, "--epochs", 1)
    good = Path("state").read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = run(*args, "--epochs", 2, "--resume", "-o", "out.onnx")
    assert (result.code, result.err) == (2, "pcmc: state: can't be written: No space left on device\n")
    assert Path("state").read_bytes() == good
    assert not Path("out.onnx").exists()


def test_a_loss_that_is_not_finite_ends_in_one_line_and_writes_no_model(run):
    Path("state").write_bytes(b"good")
    net = write_net()
    onnx.save(networks.perceptron((64, 20, 20, 10), "relu"), net)
    data = write_digits(x=digits()[0].reshape(-1, 64) * 1e6)
    args = ("train", net, "--data", data, "--lr", 1e6, "--physics", "ideal", "--checkpoint", "state")
    result = run(*args, "-o", "out.onnx")
    assert result.code == 2
    assert re.fullmatch(
        r"pcmc: the loss is not finite in epoch \d+: a lower learning rate than [0-9.e+]+ may help; no model "
        r"is written, state is as before\n",
        result.err,
    )
    assert Path("state").read_bytes() == b"good"
    assert not Path("out.onnx").exists()


# --- what it refuses ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lr", "0"), "lr = 0: must be more than 0"),
        (("--lr", "inf"), "lr = inf: must be more than 0"),
        (("--lr", "nan"), "lr = nan"),
        (("--decay", "0"), "decay = 0"),
        (("--momentum", "0.9"), "momentum = 0.9: must be 0 where pulses update devices"),
        (("--loss", "hinge"), "loss 'hinge': should be one of"),
        (("--train-layers", "nowhere"), "no layer 'nowhere' with a matrix on the chip"),
        (("--head", "1"), "a head of 1 classes: should be a whole number from 2 on"),
        (("--physics", "magic"), "magic"),
        (("--physics", "drift"), "drift"),
        (("--weight-range", "-1"), "weight_range = -1"),
        (("--mode", "by-hand"), "mode = 'by-hand'"),
        (("--resume",), "--resume needs --checkpoint FILE"),
        (("-o", "no/such/folder.onnx"), "no/such/folder.onnx: can't be written"),
        (("--log", "."), "is a folder"),
        (("--checkpoint", "no/state"), "no/state: can't be written"),
        (("--chip", "truenorth"), "can't be trained"),
        (("--data", "missing.npz"), "missing.npz"),
        (("--data", "emnist"), "emnist"),
    ],
)
def test_a_wrong_setting_is_one_line(refused, words, message):
    assert message in refused("train", write_net(), "--data", write_digits(), *words)
    assert not Path("net-trained.onnx").exists()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.full(200, 10)}, "label 0 is 10; the model has 10 outputs, so they are 0 to 9"),
        ({"y": np.full(200, -1)}, "label 0 is -1"),
        ({"y": np.full(200, 0.5)}, "class numbers are whole"),
        ({"y": np.zeros(199, int)}, "x has 200 samples, y has 199 labels"),
        ({"y": None}, "y"),
        ({"x": np.zeros((200, 63), np.float32)}, "has shape [200, 63]; the model's input 'x' takes [N, 64]"),
        ({"x": np.zeros((0, 64), np.float32), "y": np.zeros(0, int)}, "there is nothing in it"),
        ({"x": np.full((200, 64), np.nan)}, "sample 0 has values that are NaN or infinite"),
        ({"x": np.full((200, 64), "a")}, "should be numbers"),
        ({"y_test": np.full(100, 99)}, "label 0 is 99"),
    ],
)
def test_wrong_data_are_one_line(refused, arrays, message):
    assert message in refused("train", write_net(), "--data", write_digits(**arrays))
    assert not Path("net-trained.onnx").exists()


def test_data_must_be_named(refused):
    assert refused("train", "digits-mlp").startswith("pcmc train needs --data: ")


# --- signals, in a process of its own ---


def start(*words: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pcmc", "train", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def position(state: Path) -> tuple[int, int]:
    import zipfile

    with zipfile.ZipFile(state) as archive:
        running = json.loads(archive.read("checkpoint.json"))["running"]
    return running["epoch"], running["position"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "examples"), [("net.onnx", 50_000), ("digits-cnn", 1_000)], ids=["fast path", "general path"]
)
def test_killed_within_an_epoch_a_training_goes_on_to_the_same_bits(tmp_chdir, done, model, examples):
    write_net()
    x, y, _, _ = digits()
    wide = x if model == "digits-cnn" else x.reshape(-1, 64)
    repeated = np.arange(examples) % len(x)
    np.savez("d.npz", x=wide[repeated], y=y[repeated], x_test=wide, y_test=y)
    args = (model, "--data", "d.npz", "--epochs", 2, "--lr", 0.01, "--log", "log.jsonl")
    state = Path("state")
    process = start(*args, "--checkpoint", state, "--checkpoint-every", 0, "-o", "killed.onnx")
    try:
        wait_for(state, process)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not Path("killed.onnx").exists()
    epoch, examples_done = position(state)
    assert epoch * examples + examples_done < 2 * examples
    assert not [path for path in Path().iterdir() if path.suffix == ".onnx" and "killed" in path.name]
    resumed = json.loads(done("train", *args, "--checkpoint", state, "--resume", "-o", "b.onnx", "--json"))
    through = json.loads(done("train", *args, "-o", "a.onnx", "--json"))
    assert Path("a.onnx").read_bytes() == Path("b.onnx").read_bytes()
    for facts in (resumed, through):
        for epoch_facts in facts["epochs"]:
            del epoch_facts["seconds"]
        del facts["output"]
    assert resumed == through


@pytest.mark.slow
def test_ctrl_c_saves_the_state_and_the_model(tmp_chdir, done):
    write_net()
    x, y, _, _ = digits()
    repeated = np.arange(400_000) % len(x)
    np.savez("d.npz", x=x.reshape(-1, 64)[repeated], y=y[repeated], x_test=x.reshape(-1, 64), y_test=y)
    state = Path("state")
    args = ("net.onnx", "--data", "d.npz", "--epochs", 50, "--checkpoint", state)
    process = start(*args, "--checkpoint-every", 0, "-o", "out.onnx")
    wait_for(state, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == ""
    assert re.search(r"stopped early: interrupted in epoch \d+, after [\d,]+ examples of it", out)
    assert "written to out.onnx" in out
    assert position(state) != (0, 0)
    found = accuracy("out.onnx", x.reshape(-1, 64), y)
    assert f"exported weights in onnxruntime  {found:.2%}" in out


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_on_a_disk_that_is_full_the_last_good_checkpoint_stays(tmp_chdir):
    disk = Path("disk")
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a disk")
    try:
        write_net()
        write_digits()
        args = ("net.onnx", "--data", "d.npz", "--checkpoint", disk / "state", "-o", "out.onnx")
        first = start(*args, "--epochs", 1)
        assert first.communicate()[1] == ""
        good = (disk / "state").read_bytes()
        with (disk / "ballast").open("wb") as file:
            file.write(bytes((1 << 20) - len(good) - 8192))
        second = start(*args, "--epochs", 3, "--resume")
        _, err = second.communicate()
        assert second.returncode == 2
        assert err == "pcmc: disk/state: can't be written: No space left on device\n"
        assert (disk / "state").read_bytes() == good
        assert {path.name for path in disk.iterdir()} == {"state", "ballast"}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
