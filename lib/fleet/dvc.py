"""DVC as a user would run it: commands with their output shown, and which stages are stale."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO

from lib.errors import StageError, TryAgain

DVC = [sys.executable, "-m", "dvc"]
STANDARD_ERROR = 2
ANOTHER_AT_WORK = ("is busy", "Unable to acquire lock")  # what DVC says of a stage that is run, of the whole project


def run(check: Callable[[], None], *arguments: str) -> None:
    """Run `dvc <arguments>`. `check` is called meanwhile and may raise to end it. Raises StageError if DVC fails."""
    process = subprocess.Popen([*DVC, *arguments], stderr=subprocess.PIPE)
    _finish(process, check, arguments)


def stale(check: Callable[[], None], group: str) -> list[str]:
    """The keys ("resnet110-baseline-0") of a matrix stage's stale stages.

    Raises StageError if DVC cannot tell.
    """
    arguments = ("status", group, "--json")
    process = subprocess.Popen([*DVC, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    told = _finish(process, check, arguments)
    try:
        stages = json.loads(told)
    except ValueError:
        raise StageError(f"`dvc {' '.join(arguments)}` did not tell: {told[:200]!r}") from None
    return [stage.removeprefix(f"{group}@") for stage in stages if stage.startswith(f"{group}@")]


def _finish(process: subprocess.Popen[bytes], check: Callable[[], None], arguments: tuple[str, ...]) -> str:
    """Wait for the process, showing its errors; returns its piped output. Raises StageError if it failed."""
    errors, output = _Reader(process.stderr, STANDARD_ERROR), _Reader(process.stdout)
    try:
        while process.poll() is None:
            time.sleep(0.1)
            check()
    finally:
        process.terminate()
        process.wait()
    check()  # a Ctrl-C ends both
    if process.returncode and any(words in errors.text() for words in ANOTHER_AT_WORK):
        raise TryAgain(
            "another dvc is at work in this project, as DVC says above: wait for it, then try again "
            "(if there is none: `make doctor` finds what it left behind)"
        )
    if process.returncode:
        raise StageError(f"`dvc {' '.join(arguments)}` ended with status {process.returncode}; it said why above")
    return output.text()


class _Reader:
    """Reads a pipe to its end, copying it to `passed_to`."""

    def __init__(self, pipe: IO[bytes] | None, passed_to: int | None = None) -> None:
        self.pipe, self.passed_to = pipe, passed_to
        self.content = bytearray()
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        if self.pipe is None:
            return
        with self.pipe:
            while piece := os.read(self.pipe.fileno(), 65536):
                self.content += piece
                if self.passed_to is not None:
                    os.write(self.passed_to, piece)

    def text(self) -> str:
        self.thread.join(1)  # a process that DVC left behind may keep the pipe open
        return self.content.decode(errors="replace")
