"""What goes on beside the steps: saving every so often, Ctrl-C, and the fingerprint of the data."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest

from pcmc.errors import DataError
from pcmc.runtime.trainer.interrupt import interrupts_noted
from pcmc.runtime.trainer.trainer import Trainer
from pcmc.runtime.trainer.watch import Watch, check_same_data, data_hash

from .nets import dense_program, spread_classes


def test_the_state_is_written_when_it_was_long_ago(monkeypatch):
    from pcmc.runtime.trainer import watch as module

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    written: list[float] = []
    watch = Watch(lambda: False, lambda: written.append(now[0]), every=60.0)
    for second in range(0, 200, 10):
        now[0] = float(second)
        watch.keep_if_due()
        if second == 90:
            watch.keep()
    assert written == [60.0, 90.0, 150.0]


def test_without_a_file_nothing_is_written():
    watch = Watch(lambda: False, None, every=0.0)
    watch.keep()
    watch.keep_if_due()


def test_data_are_told_apart_by_value_type_shape_and_name():
    x, y = np.zeros((4, 3), np.float32), np.arange(4)
    one = data_hash({"x": x}, y)
    assert one == data_hash({"x": x.copy()}, y)
    others = [({"z": x}, y), ({"x": x.T.copy()}, y), ({"x": x + 1}, y), ({"x": x}, y + 1), ({"x": x[:3]}, y)]
    assert one not in [data_hash(*other) for other in others]
    assert one == data_hash({"x": np.asfortranarray(x)}, y)
    check_same_data("", one)
    check_same_data(one, one)
    with pytest.raises(DataError, match="other training examples"):
        check_same_data(one, "else")


def test_ctrl_c_is_noted_and_a_second_one_interrupts():
    with interrupts_noted() as interrupted:
        assert not interrupted()
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_other_threads_train_without_signals():
    said: list[bool] = []

    def work() -> None:
        with interrupts_noted() as interrupted:
            said.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert said == [False]


def test_a_training_that_was_interrupted_goes_on_where_it_was():
    program, (x, y) = dense_program(), spread_classes(6000, 12, 4)
    through, stopped = (Trainer(program, lr=0.05, seed=2) for _ in range(2))
    through.fit(x, y)
    history = stopped.fit(x, y, on_progress=lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert history.ended == "interrupted"
    assert history.stopped == "interrupted in epoch 1, after 2,000 examples of it"
    assert stopped.fit(x, y).ended == "done"
    for name in program.banks:
        np.testing.assert_array_equal(through.program.banks[name].cells, stopped.program.banks[name].cells)
