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
    """The work of all runs, in layers times epochs, and how fast it is done.

    The first epoch of each run has the starts in it (imports, kernels to be compiled), which would make the rest look
    long: the pace is that of the epochs after it.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs = runs
        self.total = sum(run.layers * run.card.epochs for run in runs)
        self.begun = [run.epoch for run in runs]
        self.started = False  # whether a run is past the first epoch that it had here
        self.start, self.before = time.monotonic(), self.done

    @property
    def done(self) -> int:
        return sum(run.layers * run.epoch for run in self.runs)

    def summary(self) -> str:
        """How far all runs are, and how long the rest will take. Ask whenever a run got further."""
        if not self.started:
            self._look_for_a_start()
        fresh = self.done - self.before
        rest = sum(run.work_left for run in self.runs if not run.over)
        left = (time.monotonic() - self.start) * rest / fresh if fresh > 0 else None
        finished = sum(run.finished for run in self.runs)
        return f"{finished} of {len(self.runs)} runs done" + (
            f", {duration(left)} left for all" if left is not None else ""
        )

    def _look_for_a_start(self) -> None:
        """Begin anew after each run's first epoch, until one has ended its second, or its only one."""
        since = [(run, run.epoch - epoch) for run, epoch in zip(self.runs, self.begun, strict=True)]
        self.started = any(epochs > 1 or (epochs and run.finished) for run, epochs in since)
        if not self.started and self.done > self.before:
            self.start, self.before = time.monotonic(), self.done


def on_cores() -> int:
    """How many runs at once this machine's CPU takes: one on each core, as far as the memory goes."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(os.cpu_count() or 1, int(memory / BYTES_A_RUN)))
