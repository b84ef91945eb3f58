"""What the fleet does on a node: lay out what a task needs, run `stages.train` on it, send back what it makes.

Everything is in a folder local to the node, so no disk is shared. Imports neither Ray nor torch: training is a separate
process.
"""

import contextlib
import dataclasses
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from lib import lock
from lib.errors import BadInput, StageError, TryAgain, printable
from lib.files import write_whole
from lib.fleet import node

CHECKPOINT = re.compile(r"epoch-(\d{4,9})\.ckpt")
LOG_BYTES = 20_000  # kept of the end of a log, and of errors before it
PATIENCE = 60  # seconds for a killed worker's training, or another worker of the same run, to end


@dataclasses.dataclass(frozen=True)
class Order:
    """A run to be trained: its card's content, its checkpoint folder's name (run and fingerprint), its epochs."""

    run: str
    card: bytes
    folder: str
    epochs: int


@dataclasses.dataclass(frozen=True)
class Began:
    """A task has a place: its node's name, the versions there that decide results, and the engine's id for it."""

    node: str
    versions: dict[str, str]
    node_id: str


@dataclasses.dataclass(frozen=True)
class Came:
    """A run has a new checkpoint: its file's name and content."""

    run: str
    file: str
    content: bytes


@dataclasses.dataclass(frozen=True)
class Ended:
    """Training has ended: its exit status (negative for a signal), and the end of its log."""

    status: int
    log: str


News = Began | Came | Ended


class Worker:
    """Trains the runs of one task, starting with begin(); news() is called repeatedly until it returns Ended.

    `data` maps the data folder's files to their SHA-256s; `fetch` gets their contents from the driver, once per node.
    """

    def __init__(self, orders: Sequence[Order], data: Mapping[str, str], fetch: Callable[[], Mapping[str, bytes]]):
        self.orders, self.data, self.fetch = orders, data, fetch
        self.turns = list(orders)  # whose checkpoint goes first: a quick run's would keep back the others'
        self.sent = {order.run: 0 for order in orders}  # the last epoch that the driver has
        self.found: dict[str, int] = {}  # the last that an earlier task left here: it may be damaged
        self.process: subprocess.Popen[bytes] | None = None
        self.gpu = False
        self.mine = contextlib.ExitStack()  # what this worker holds until its end: its folder, its runs

    def begin(self, devices: str, node_id: str) -> Began:
        """`devices` names its GPUs, as " GPU 0"; empty for a CPU."""
        self.gpu = bool(devices)
        return Began(f"{socket.gethostname()}{devices}", node.versions(), node_id)

    def train(self, checkpoints: Mapping[str, tuple[str, bytes]]) -> News:
        """Start training, given the driver's checkpoint (name and content) of each run that has one."""
        try:
            self.home = node.home()
            node.sweep(self.home)
            self.place = self.mine.enter_context(node.fresh_folder(self.home / "tasks"))
            data = node.data_here(self.home / "data", self.data, self.fetch)
            (self.place / "data").mkdir()
            (self.place / "data" / "cifar10").symlink_to(data)
            self._lay_out(checkpoints)
        except (BadInput, TryAgain) as error:  # this node's fault, not the run's: another may work
            self.mine.close()
            return Ended(TryAgain.status, f"train: {error}")
        self.log = self.mine.enter_context(open(self.place / "log", "w+b"))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stages.train", *(f"plan/{order.run}.json" for order in self.orders)],
            cwd=self.place,
            env=node.environment(self.gpu),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )
        return self.news()

    def _lay_out(self, checkpoints: Mapping[str, tuple[str, bytes]]) -> None:
        """Lay out cards, and the driver's checkpoints beside what an earlier task, killed here, may have left.

        Raises TryAgain that names who still holds a run here after PATIENCE, before anything is written.
        """
        until = time.monotonic() + PATIENCE
        for order in self.orders:  # against other workers, to the end: a training locks its folder only while it runs
            self.mine.enter_context(held(self.home / "runs" / order.folder, order.run, until))
        with contextlib.ExitStack() as trainings:  # of killed workers
            for order in self.orders:
                trainings.enter_context(held(self._kept(order), order.run, until))
            (self.place / "checkpoints").mkdir()
            for order in self.orders:
                write_whole(self.place / "plan" / f"{order.run}.json", order.card)
                kept = self._kept(order)
                os.utime(kept)  # else it might be deleted before the training locks it
                self.found[order.run] = epoch_of(newest) if (newest := self._newest(order)) else 0
                (self.place / "checkpoints" / order.folder).symlink_to(kept)
                if order.run in checkpoints:
                    name, content = checkpoints[order.run]
                    write_whole(kept / name, content)
                    self.sent[order.run] = epoch_of(name)

    def _kept(self, order: Order) -> Path:
        return self.home / "checkpoints" / order.folder

    def news(self) -> News:
        """Wait for the next checkpoint, or for the end."""
        assert self.process is not None
        while True:
            status = self.process.poll()  # polled first, so that what was written just before the end is seen
            for order in self.turns:
                if came := self._newer(order, at_its_end=status == 0):
                    self.turns = [*(each for each in self.turns if each is not order), order]
                    return came
            strange = {path.name for path in self.place.glob("checkpoints/*")} - {each.folder for each in self.orders}
            if strange:
                return self._end(f"train: this node takes its run for another, {min(strange)}: its code is not ours")
            if status is not None:
                return self._end()
            time.sleep(0.1)

    def _newest(self, order: Order) -> str | None:
        """The name of a run's newest checkpoint here."""
        found = [path.name for path in self._kept(order).glob("*.ckpt") if CHECKPOINT.fullmatch(path.name)]
        return max((name for name in found if epoch_of(name) <= order.epochs), key=epoch_of, default=None)

    def _newer(self, order: Order, at_its_end: bool) -> Came | None:
        """A run's newest checkpoint, if the driver has none as new. It may be gone by the time it is read.

        What lay here before is not sent until training has accepted it by going past it or finishing: it sets damaged
        ones aside. What it retrains is sent at once.
        """
        newest = self._newest(order)
        self.found[order.run] = min(self.found[order.run], epoch_of(newest) if newest else 0)
        above = self.sent[order.run] if at_its_end else max(self.sent[order.run], self.found[order.run])
        if newest and epoch_of(newest) > above:
            with contextlib.suppress(FileNotFoundError):
                content = (self._kept(order) / newest).read_bytes()
                self.sent[order.run] = epoch_of(newest)
                return Came(order.run, newest, content)
        return None

    def _end(self, fault: str | None = None) -> Ended:
        """Training's end, with what is worth keeping of its log; given a fault, kill it and report that instead."""
        assert self.process is not None
        if fault:
            self.process.kill()
        status = self.process.wait()
        self.log.seek(0)
        said = printable(fault or worth_keeping(self.log.read()).decode(errors="replace"), kept="\n")
        for order in self.orders:
            newest = self._newest(order)
            if newest and epoch_of(newest) > self.sent[order.run]:
                continue  # left by an earlier task, and not accepted by this one's training: the next may
            with contextlib.suppress(StageError), held(self._kept(order), order.run):  # else it is another's
                shutil.rmtree(self._kept(order), ignore_errors=True)
        self.mine.close()
        return Ended(2 if fault else status, said)


@contextlib.contextmanager
def held(folder: Path, run: str, until: float = 0) -> Iterator[None]:
    """Lock a run's folder, waiting for its holder until `until` (time.monotonic()). Raises as lock.take does."""
    while True:
        try:
            taken = lock.take(folder, run)
            break
        except TryAgain:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
    try:
        yield
    finally:
        os.close(taken)


def worth_keeping(log: bytes) -> bytes:
    """The end of a log, after the errors that it tells of before: runs that failed early, beside others."""
    errors = [line for line in log[:-LOG_BYTES].splitlines(keepends=True) if line.startswith(b"train: ")]
    return b"".join(errors)[-LOG_BYTES:] + log[-LOG_BYTES:]


def epoch_of(name: str) -> int:
    return int(name.removeprefix("epoch-").removesuffix(".ckpt"))
