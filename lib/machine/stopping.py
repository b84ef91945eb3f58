"""How a process ends before its work is done: on a signal, at the next step; or with the parent that started it."""

import contextlib
import ctypes
import os
import signal
import sys
import types
from collections.abc import Iterable, Iterator
from typing import TypeVar

from lib.errors import Stopped

Batch = TypeVar("Batch")
ENDS_WITH_PARENT = "IC_ENDS_WITH_PARENT"  # environment variable, set for a process that must not outlive its parent
PR_SET_PDEATHSIG = 1  # prctl(2): send this process a signal when its parent ends


class Stop:
    """Turns SIGTERM and SIGINT (Ctrl-C) into Stopped at the next step; the same signal again ends the process at once.

    The other one does not: after a Ctrl-C, which a terminal sends to all its processes, their parent sends SIGTERM.
    DVC takes a stage that exits with 0 for done, so a stop always exits with 128 plus the signal's number.
    """

    def __init__(self, stage: str = "train") -> None:
        self.stage = stage  # for messages
        self.heard: list[int] = []  # signals, in order

    def listen(self) -> None:
        """Handle both signals; under DVC, `make study` or a fleet, also end when the parent ends.

        A killed DVC leaves its stage's process behind, and its next run would start a second one beside it.
        Raises Stopped if the parent is gone already.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        if {"DVC_STAGE", ENDS_WITH_PARENT} & os.environ.keys():  # DVC sets its own for every stage it runs
            end_with_parent()
            if not _parent_shares_our_group():
                raise Stopped("the process that started this run has ended", signal.SIGTERM)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if number in self.heard:
            os._exit(128 + number)
        self.heard.append(number)
        if len(self.heard) > 1:
            return
        # Not print(): the signal may have interrupted one, and buffered writers are not reentrant.
        with contextlib.suppress(OSError):
            os.write(2, f"{self.stage}: {signal.Signals(number).name}: stopping at the next step\n".encode())

    def check(self) -> None:
        """Raise Stopped if a signal has come."""
        if self.heard:
            name = signal.Signals(self.heard[0]).name
            raise Stopped(f"stopped by {name}; the same command goes on from the last whole epoch", self.heard[0])

    def at_steps(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on; raise Stopped between two of them, where nothing is half done."""
        for batch in batches:
            self.check()
            yield batch


def end_with_parent() -> None:
    """Have the system send this process SIGTERM when its parent ends, however it ends; Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _parent_shares_our_group() -> bool:
    """Whether the process that started this one is still its parent.

    DVC, `make study` and a fleet start a run in their own process group; whoever inherits an orphan (init, systemd, a
    container's reaper) is in another one.
    """
    try:
        return os.getpgid(os.getppid()) == os.getpgrp()
    except OSError:
        return False
