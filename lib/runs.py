"""How far the runs of a study are, as their checkpoints tell, and how long the rest will take."""

import os
import time
from collections.abc import Sequence

from lib.card import RunCard
from lib.checkpoint import Checkpoints
from lib.progress import duration
from lib.resnet import depth

BYTES_A_RUN = 3e9  # of memory, at the paper's scale (batch 64, 164 layers), with room to spare


class Run:
    """A run of the study and how far it is."""

    def __init__(self, card: RunCard, checkpoints: Checkpoints) -> None:
        self.card, self.checkpoints = card, checkpoints
        self.layers = depth(card.block, card.blocks_per_stage)  # an epoch's time goes about with it
        self.epoch = 0
        self.look()

    def look(self) -> bool:
        """Whether it got further since the last look."""
        before, self.epoch = self.epoch, max(self.checkpoints.epochs(self.card.epochs), default=0)
        return self.epoch > before

    @property
    def finished(self) -> bool:
        return self.epoch == self.card.epochs

    @property
    def over(self) -> bool:
        """Whether nothing is left to be waited for."""
        return self.finished

    @property
    def work_left(self) -> int:
        """In layers times epochs."""
        return self.layers * (self.card.epochs - self.epoch)


class Pace:
    """The work of all runs, in layers times epochs, and how fast it has been done since this began."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.start, self.before = time.monotonic(), self.done
        self.total = sum(run.layers * run.card.epochs for run in runs)

    @property
    def done(self) -> int:
        return sum(run.layers * run.epoch for run in self.runs)

    def summary(self) -> str:
        """How far all runs are, and how long the rest will take at the pace since this began."""
        fresh = self.done - self.before
        rest = sum(run.work_left for run in self.runs if not run.over)
        left = (time.monotonic() - self.start) * rest / fresh if fresh > 0 else None
        finished = sum(run.finished for run in self.runs)
        return f"{finished} of {len(self.runs)} runs done" + (
            f", {duration(left)} left for all" if left is not None else ""
        )


def on_cores() -> int:
    """How many runs at once this machine's CPU takes: one on each core, as far as the memory goes."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, int(memory / BYTES_A_RUN)))
