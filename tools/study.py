"""Train all runs of plan/ that lack results, as many at once as this machine takes. Needs no DVC.

On a GPU one process trains them all, side by side. On a CPU every core trains one run at a time, on one thread: cores
that share a run wait for each other at every operation. Each run is an ordinary `python -m stages.train`, with its own
lock, checkpoints and metrics: stop and restart this as you like. `dvc repro` then collects trained runs in seconds.
Exit status: 0 all runs finished, 130 or 143 stopped by a signal, else that of a run that failed (each is named).
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from lib import cifar10
from lib.cards import read_cards
from lib.errors import BadInput, StageError, ending_of, errors_exit, status_of
from lib.files import failures_named
from lib.machine.stopping import ENDS_WITH_PARENT, Stop
from lib.metrics import read_metrics
from lib.runs import Pace, Run, on_cores
from lib.words import some
from stages.train import checkpoint_root, checkpoints_of, outputs_of, weights_file


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tools.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    stop = Stop("study")
    with errors_exit("study"):
        stop.listen()
        data = cifar10.verified_files(Path("data/cifar10")).sha256
        runs = [Run(card, checkpoints_of(card, data)) for card in read_cards(Path("plan"))]
        failed = train(list(without_results(runs, stop)), Display(runs), stop)
        if failed:
            left = [run.card.name for run in runs if not run.finished] or list(failed)
            others = "; the others are" * (len(left) < len(runs))
            raise StageError(
                f"not trained: {some(left)}{others}. Each said why above; see also {log_file()}",
                status_of(failed.values()),
            )
        print(f"study: all {len(runs)} runs are trained; `dvc repro` collects them, draws Figure 4 and writes Table 1")


def without_results(runs: Sequence[Run], stop: Stop) -> Iterator[Run]:
    """The runs that are to be trained. With hundreds of checkpoints to read it takes a while."""
    for run in runs:
        stop.check()
        if not has_results(run):
            yield run


def has_results(run: Run) -> bool:
    """Whether a run is trained, its last checkpoint is sound, and its metrics and weights are from that checkpoint."""
    done = run.checkpoints.newest(run.card.epochs) if run.finished else None
    run.look()  # a damaged checkpoint was set aside
    if done is None or not run.finished:
        return False
    metrics, weights = outputs_of(run.card)
    with contextlib.suppress(BadInput, OSError):
        told = read_metrics(metrics)
        written = told.history == done.history and told.facts.as_planned(run.card)
        return written and weights.read_bytes() == weights_file(done)
    return False


class Display:
    """A line per epoch of any run and, on a terminal, a progress bar for the whole study."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self.pace = Pace(runs)
        layout = "{desc} |{bar:20}| {percentage:3.0f}%"
        self.bar = tqdm(total=self.pace.total, initial=self.pace.done, bar_format=layout, disable=None)

    def look(self) -> None:
        """Show what is new."""
        for run in self.pace.runs:
            if run.look():
                summary = self.pace.summary()
                self.bar.set_description_str(summary, refresh=False)
                tqdm.write(f"{run.card.name}  epoch {run.epoch}/{run.card.epochs}{accuracy(run)}  {summary}")
        self.bar.update(self.pace.done - self.bar.n)


def log_file() -> Path:
    """Where the training processes print to."""
    return checkpoint_root() / "study.log"


def accuracy(run: Run) -> str:
    """The test accuracy of a run's last epoch, if its metrics have it yet: they are written after the checkpoint."""
    with contextlib.suppress(BadInput):
        told = read_metrics(Path("metrics", f"{run.card.name}.json"))
        if len(told.history) == run.epoch:  # else it is another training's, or about to be written
            return f"  test accuracy {told.test_accuracy:7.2%}"
    return ""


def train(runs: Sequence[Run], display: Display, stop: Stop) -> dict[str, int]:
    """Train the runs; the exit status of each that failed, by name. If stopped, raises Stopped once all have ended."""
    waiting, side_by_side = commands(runs)
    failed: dict[str, int] = {}
    active: dict[str, subprocess.Popen[bytes]] = {}
    environment = os.environ | {"OMP_NUM_THREADS": "1", ENDS_WITH_PARENT: "1"}
    kept = log_file()
    with failures_named(kept):
        kept.parent.mkdir(parents=True, exist_ok=True)
        log = kept.open("ab")
    try:
        with log:
            while waiting or active:
                while waiting and len(active) < side_by_side:
                    name, cards = waiting.pop(0)
                    command = [sys.executable, "-m", "stages.train", *cards]
                    active[name] = subprocess.Popen(command, env=environment, stdout=log)
                time.sleep(0.5)
                stop.check()
                display.look()
                for name in [name for name, process in active.items() if process.poll() is not None]:
                    if status := active.pop(name).returncode:
                        failed[name] = 128 - status if status < 0 else status
                        tqdm.write(f"{name}  FAILED: {ending_of(status)}")
    finally:
        for process in active.values():
            process.terminate()
        for process in active.values():
            process.wait()
        display.bar.close()
    return failed


def commands(runs: Sequence[Run]) -> tuple[list[tuple[str, list[str]]], int]:
    """The processes to start, each with a name and its cards, and how many at once.

    Seed by seed, so that a study that is stopped early can be compared.
    """
    cards = {run.card.name: f"plan/{run.card.name}.json" for run in sorted(runs, key=lambda run: run.card.seed)}
    if torch.cuda.is_available() and any(run.card.device != "cpu" for run in runs):
        return [("the runs on the GPU", list(cards.values()))], 1
    return [(name, [card]) for name, card in cards.items()], on_cores()


if __name__ == "__main__":
    main()
