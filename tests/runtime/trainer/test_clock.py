"""Leaks at every multiple of LEAK_EVERY examples, transfers when they are due, none twice, none left out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcmc.accel.chip import load_chip
from pcmc.accel.training.bank import LEAK_EVERY
from pcmc.runtime.trainer.clock import NEVER, Clock

CHIP = load_chip("nature2018")


@dataclass
class Recorder:
    """A bank that writes down what it is told."""

    transfer_every: int
    pull: float = 1.0
    leak_factor: float = 0.5
    leaks: list[int] = field(default_factory=list)
    transfers: list[tuple[int, slice | None]] = field(default_factory=list)

    def leak(self, examples: int) -> None:
        self.leaks.append(examples)

    def transfer(self, example: int, part: slice | None = None) -> None:
        self.transfers.append((example, part))


def clock(*banks: Recorder, transfer: str = "array") -> Clock:
    chip = CHIP
    training = dataclasses.replace(chip.training, transfer=transfer)
    found: dict[str, Any] = {str(index): bank for index, bank in enumerate(banks)}
    return Clock(found, dataclasses.replace(chip, training=training))


def run(one: Clock, examples: int, most: int) -> None:
    """As the trainer does it: in parts that end where something is due."""
    left = examples
    while left:
        part = min(left, most, one.until_event())
        one.count(part)
        one.transfer_if_due()
        left -= part


@given(examples=st.integers(0, 1000), most=st.integers(1, 400))
def test_leaks_come_at_their_multiples(examples, most):
    bank = Recorder(0)
    run(clock(bank), examples, most)
    assert bank.leaks == [LEAK_EVERY] * (examples // LEAK_EVERY)


@given(every=st.integers(1, 300), examples=st.integers(0, 1000), most=st.integers(1, 400))
def test_whole_arrays_are_transferred_at_their_multiples(every, examples, most):
    bank = Recorder(every)
    run(clock(bank), examples, most)
    assert bank.transfers == [(n, None) for n in range(every, examples + 1, every)]


@given(every=st.integers(1, 300), examples=st.integers(0, 700), most=st.integers(1, 400))
def test_columns_are_transferred_one_after_the_other_once_in_each_interval(every, examples, most):
    bank = Recorder(every)
    one = clock(bank, transfer="columns")
    columns = CHIP.tile.cols
    run(one, examples, most)
    parts = [part.start for _, part in bank.transfers if part is not None]
    assert parts == [n % columns for n in range(examples * columns // every)]
    assert all(part is not None and part.stop == part.start + 1 for _, part in bank.transfers)
    for number, (example, _) in enumerate(bank.transfers, 1):
        assert (example - 1) * columns < number * every <= example * columns


def test_a_clock_that_goes_on_repeats_nothing():
    bank, other = Recorder(100), Recorder(100)
    run(clock(bank), 350, 77)
    first, second = clock(other), clock(other)
    run(first, 230, 77)
    second.restore(230)
    run(second, 120, 77)
    assert other.transfers == bank.transfers
    assert second.examples == 350


def test_without_transfers_nothing_is_ever_due():
    assert clock(Recorder(0)).until_event() == NEVER


@pytest.mark.parametrize("examples", [1, 79, 80, 81, 240])
def test_references_follow_where_banks_have_leaked_by_themselves(examples):
    bank = Recorder(0)
    one = clock(bank)
    one.leaked(examples)
    assert bank.pull == 0.5 ** (examples // LEAK_EVERY)
    assert bank.leaks == []
