"""The clock of training: examples so far, and what is due at which of them."""

from __future__ import annotations

from collections.abc import Mapping

from pcmc.accel.chip import ChipSpec
from pcmc.accel.training.arrays import TrainedBank
from pcmc.accel.training.bank import LEAK_EVERY

#: More examples than there will be.
NEVER = 1 << 62


class Clock:
    """Counts examples; lets capacitors leak at every LEAK_EVERY of them, and transfers banks when it is time.

    Banks are transferred whole at every multiple of their `transfer_every`, or, where the chip does it in
    columns, one column of each tile after the other, spread evenly over that time.

    Args:
        banks: what is trained, by name.
        chip: says how transfers go.
    """

    def __init__(self, banks: Mapping[str, TrainedBank], chip: ChipSpec) -> None:
        self.examples = 0
        self._banks = banks
        self._columns = chip.tile.cols if chip.training.transfer == "columns" else 0
        self._transferred = 0  # the example up to which transfers have been done

    def until_event(self) -> int:
        """Examples until something of a bank is transferred, at least 1."""
        return min((self._next(bank) for bank in self._banks.values()), default=NEVER) - self.examples

    def count(self, examples: int) -> None:
        """So many examples have been trained on; their leak is still to come."""
        for _ in range(examples):
            self.examples += 1
            if self.examples % LEAK_EVERY == 0:
                for bank in self._banks.values():
                    bank.leak(LEAK_EVERY)

    def leaked(self, examples: int) -> None:
        """So many examples have been trained on, and the banks have leaked; references follow."""
        times = (self.examples + examples) // LEAK_EVERY - self.examples // LEAK_EVERY
        self.examples += examples
        for bank in self._banks.values():
            for _ in range(times):
                bank.pull *= bank.leak_factor

    def transfer_if_due(self) -> None:
        """Transfer what is due by now; where that is between two leaks, theirs comes with the next one."""
        for bank in self._banks.values():
            if not bank.transfer_every:
                continue
            for part in self._due(bank):
                bank.transfer(self.examples, part)
        self._transferred = self.examples

    def restore(self, examples: int) -> None:
        """Go on after so many examples, all that was due being done."""
        self.examples = self._transferred = examples

    def _next(self, bank: TrainedBank) -> int:
        """The next example at which something of a bank is due."""
        every = bank.transfer_every
        if not every:
            return NEVER
        if not self._columns:
            return (self.examples // every + 1) * every
        done = self.examples * self._columns // every  # columns so far, those of all intervals
        return -(-(done + 1) * every // self._columns)

    def _due(self, bank: TrainedBank) -> list[slice | None]:
        """What of a bank has come due since the last transfers."""
        every = bank.transfer_every
        if not self._columns:
            return [None] * (self.examples // every - self._transferred // every)
        columns = range(self._transferred * self._columns // every, self.examples * self._columns // every)
        return [slice(column % self._columns, column % self._columns + 1) for column in columns]
