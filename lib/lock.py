"""One writer per folder: a lock that names its holder and does not outlive it."""

import contextlib
import errno
import fcntl
import os
import socket
import time
from pathlib import Path

from lib.errors import BadInput, TryAgain


def take(folder: Path, run: str) -> int:
    """Lock a run's folder, created if missing; the lock is held while the returned file descriptor is open.

    The kernel releases it when the process ends, however it ends.
    Raises TryAgain that names the process that holds it, and BadInput if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (lock := _opened_and_locked(folder / ".lock")) is None:
            pass
        return lock
    except BlockingIOError:
        other = holder(folder) or "another process"  # it may have ended in between
        raise TryAgain(f"{run} is being trained by {other}: wait for it, or end it, then try again") from None
    except OSError as error:
        cure = "free some space, fix its permissions, or use another disk"
        if error.errno == errno.EMFILE:  # the fleet locks a folder for every run it trains
            cure = "let a process open more files: `ulimit -n 65536`"
        raise BadInput(f"{folder} cannot be locked ({error.strerror}): {cure}") from None


def _opened_and_locked(path: Path) -> int | None:
    """The lock file, locked and naming its holder; None if it was deleted meanwhile, perhaps recreated."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    with contextlib.ExitStack() as unless_held, contextlib.suppress(FileNotFoundError):
        unless_held.callback(os.close, lock)
        _flock(lock)
        if os.stat(path).st_ino == os.fstat(lock).st_ino:
            os.ftruncate(lock, 0)
            os.write(lock, f"process {os.getpid()} on {socket.gethostname()}".encode())
            unless_held.pop_all()
            return lock
    return None


def _flock(lock: int) -> None:
    """Lock a file. Raises BlockingIOError if somebody holds it; `holder` does, for the instant of asking."""
    for _ in range(3):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def holder(folder: Path) -> str | None:
    """Who holds a checkpoint folder ("process 17 on host"), or None."""
    with contextlib.suppress(OSError), open(folder / ".lock") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read() or "another process"
    return None
