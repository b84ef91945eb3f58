"""How far a study's runs are, by their checkpoints, and how long the rest will take."""

import time
from collections.abc import Sequence

from lib.card import RunCard
from lib.checkpoint import Checkpoints
from lib.machine import limits
from lib.machine.device import cores
from lib.progress import duration

BYTES_A_RUN = 4e9  # of memory: the study's largest, in float32, takes 3.2e9 (benchmarks/records)


class Run:
    """A run of the study and how far it is."""

    def __init__(self, card: RunCard, checkpoints: Checkpoints) -> None:
        self.card, self.checkpoints = card, checkpoints
        self.layers = card.depth  # an epoch's time is about proportional to it
        self.epoch = self._newest()
        self.seen: list[tuple[float, int]] = []  # time and epoch, when progress was first and last seen

    def look(self) -> bool:
        """Look again: whether it has progressed since."""
        before, self.epoch = self.epoch, self._newest()
        if self.epoch > before:
            self.seen[1:] = [(time.monotonic(), self.epoch)]
        return self.epoch > before

    def _newest(self) -> int:
        return self.checkpoints.last(up_to=self.card.epochs)

    @property
    def timed(self) -> tuple[float, int]:
        """Seconds, and work in layers times epochs, of the epochs seen here after the first."""
        if not self.seen:
            return 0.0, 0
        (start, first), (end, last) = self.seen[0], self.seen[-1]
        return end - start, self.layers * (last - first)

    @property
    def finished(self) -> bool:
        return self.epoch == self.card.epochs

    @property
    def over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.finished

    @property
    def work_left(self) -> int:
        """In layers times epochs."""
        return self.layers * (self.card.epochs - self.epoch)


class Pace:
    """The work of all runs, in layers times epochs, and an estimate of the time left.

    It is from each run's epochs here after the first, which includes start-up: imports, compiling kernels.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.total = sum(run.layers * run.card.epochs for run in runs)
        self.side_by_side = 0  # the most runs seen at work at once

    @property
    def done(self) -> int:
        return sum(run.layers * run.epoch for run in self.runs)

    def summary(self) -> str:
        """How far all runs are and, once one has finished a second epoch here, how long the rest will take."""
        finished = sum(run.finished for run in self.runs)
        left = self._seconds_left()
        return f"{finished} of {len(self.runs)} runs done" + (
            f", {duration(left)} left for all" if left is not None else ""
        )

    def _seconds_left(self) -> float | None:
        at_work = sum(bool(run.seen) and not run.over for run in self.runs)
        self.side_by_side = max(self.side_by_side, at_work)
        rest = [run.work_left for run in self.runs if not run.over]
        if not rest:
            return 0.0
        seconds, work = (sum(each) for each in zip(*(run.timed for run in self.runs), strict=True))
        if not work:
            return None
        return seconds / work * max(sum(rest) / max(1, self.side_by_side), *rest)


def on_cores() -> int:
    """How many runs this machine's CPU can train at once: one per core, as far as memory allows."""
    return max(1, min(cores(), int(limits.memory() / BYTES_A_RUN)))
