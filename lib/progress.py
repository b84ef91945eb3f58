"""What a user sees while a run trains: a bar on a terminal, and one line per epoch everywhere."""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from lib.machine.stopping import ENDS_WITH_PARENT
from lib.metrics import EpochRecord


class Progress:
    """Progress of one run of `epochs` epochs over `images` training images.

    `later` is the work left of each of the study's later runs, in multiples of all of this run's: from it, and this
    run's time so far, the time left for all is estimated. None where other runs are trained at the same time: then no
    such estimate is shown.
    """

    def __init__(self, title: str, epochs: int, images: int, later: Sequence[float] | None) -> None:
        self.title, self.epochs, self.images, self.later = title, epochs, images, later
        self.setup = time.process_time()  # CPU seconds of starting up, which each later run needs too
        self.start = time.monotonic()
        self.accuracy = "   -   "
        self.before = 0  # epochs that an earlier process trained
        self.timed_from = 0  # the epochs done at `start`

    def resumed(self, history: Sequence[EpochRecord], place: Path) -> None:
        """Say that the run resumes after the epochs already done."""
        self.before = self.timed_from = len(history)
        self.accuracy = f"{history[-1].test_accuracy:7.2%}"
        rest = "nothing is left to train" if self.before == self.epochs else f"goes on with {self.before + 1}"
        print(f"{self.title}  epochs 1 to {self.before} are in {place}: {rest}", flush=True)

    def batches(
        self, epoch: int, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass an epoch's batches on, showing a progress bar if standard error is a terminal.

        Not under `make study`, which has its own bar: several would overwrite one another.
        """
        hidden = True if ENDS_WITH_PARENT in os.environ else None  # None: unless it is a terminal
        layout = "{desc}  {percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} images  {rate_fmt}{postfix}"
        title = f"{self.title}  epoch {epoch}/{self.epochs}  test {self.accuracy}"
        with tqdm(total=self.images, desc=title, bar_format=layout, leave=False, disable=hidden, unit=" images") as bar:
            for batch in batches:
                yield batch
                bar.set_postfix_str(self.time_left(epoch - 1 + bar.n / self.images), refresh=False)
                bar.update(len(batch[1]))

    def epoch(self, record: EpochRecord) -> None:
        """Say in one line how an epoch ended."""
        self.accuracy = f"{record.test_accuracy:7.2%}"
        print(
            f"{self.title}  epoch {record.epoch}/{self.epochs}  train loss {record.train_loss:.3f}"
            f"  test accuracy {self.accuracy}  {self.time_left(record.epoch)}",
            flush=True,
        )
        if self.timed_from == self.before:  # the first epoch here includes start-up: on a GPU, compiling
            self.timed_from, self.start = record.epoch, time.monotonic()

    def warn_if_slow(self, epoch: float, epochs: int) -> None:
        """If training would take over an hour on a CPU, say how long run and study would, and what to do instead.

        `epoch` is the seconds per epoch of this run, `epochs` how many are left.
        """
        here = epoch * epochs
        if here > 3600:
            print(
                f"On this CPU an epoch takes {duration(epoch)}: about {duration(here)} for this run, "
                f"{duration(here + epoch * self._later_epochs())} with all that follow.\n"
                "Instead: `make rehearsal` runs the whole pipeline in minutes; or train on a machine with a GPU. "
                "Ctrl-C stops this run.",
                flush=True,
            )

    def time_left(self, epochs_done: float) -> str:
        """About how long this run and the whole study will take from now."""
        if epochs_done <= self.timed_from:
            return ""
        pace = (time.monotonic() - self.start) / (epochs_done - self.timed_from)  # seconds an epoch
        here = pace * (self.epochs - epochs_done)
        if self.later is None:
            return f"{duration(here)} left"
        later = pace * self._later_epochs() + len(self.later) * self.setup
        return f"{duration(here)} left, {duration(here + later)} for all"

    def _later_epochs(self) -> float:
        """The work of the later runs, in epochs of this one."""
        return self.epochs * sum(self.later or [])


def duration(seconds: float) -> str:
    """A duration for people: 45 s, 12 min, 3.5 h, 2.1 days."""
    for size, unit in ((86400, "days"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
