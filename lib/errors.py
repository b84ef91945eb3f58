"""How a stage ends when it cannot go on: one clear line, an exit status that says what to do, nothing half-written."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator


class StageError(Exception):
    """The message names the key, file or process, what is wrong, and the cure: in one line, whatever it quotes."""

    status = 1  # the process's exit status, unless another is given

    def __init__(self, message: str, status: int | None = None) -> None:
        # A key or a name from a damaged file may hold line breaks, or what a terminal would obey.
        super().__init__(printable(message))
        if status is not None:
            self.status = status


class BadInput(StageError):
    """Something the user can mend: a parameter, a file, a full disk, too small a machine."""

    status = 2


class TryAgain(StageError):
    """Nothing to mend: another process has what this one needs, or a device went away. The same command will do."""

    status = 75  # EX_TEMPFAIL of sysexits.h


class Stopped(StageError):
    """A signal ended the work before it was done. The same command goes on from the last whole epoch."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, 128 + signal_number)  # as shells report it


def status_of(failures: Iterable[int]) -> int:
    """The exit status of several failures: that to try again only where none of them is to be mended first."""
    return max(set(failures) - {TryAgain.status}, default=TryAgain.status)


def ending_of(status: int) -> str:
    """How a process ended that came to no good, by its exit status as subprocess gives it: below 0 for a signal."""
    if status >= 0:
        return f"exit status {status}"
    known = -status in set(signal.Signals)
    name = signal.Signals(-status).name if known else f"signal {-status}"
    return f"killed by {name}" + " (was memory short?)" * (status == -signal.SIGKILL)


def printable(text: str, kept: str = "") -> str:
    """A text without what a terminal would obey, but for the characters to be kept."""
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


@contextlib.contextmanager
def errors_exit(stage: str) -> Iterator[None]:
    """End the process with one line on standard error and an exit status where the body raises StageError or Ctrl-C.

    And without a word where nobody reads its output any more, as in `... | head`. What the output's encoding lacks, as
    it may a dash, is printed as a question mark.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
        sys.stdout.flush()
    except StageError as error:
        print(f"{stage}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.status)
    except KeyboardInterrupt:  # where no Stop listens for it
        print(f"{stage}: stopped by Ctrl-C", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains of it as it ends
        sys.exit(128 + signal.SIGPIPE)
