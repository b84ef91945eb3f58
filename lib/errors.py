"""How a stage ends when it cannot go on: one clear line, an exit status that says what to do, nothing half-written."""

import contextlib
import errno
import io
import os
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import IO


class StageError(Exception):
    """The message names the key, file or process, what is wrong and the fix, in one line whatever it quotes."""

    status = 1  # the process's exit status, unless another is given

    def __init__(self, message: str, status: int | None = None) -> None:
        # A key or a name from a damaged file may hold line breaks or terminal control characters.
        super().__init__(printable(message))
        if status is not None:
            self.status = status


class BadInput(StageError):
    """Something the user can fix: a parameter, a file, a full disk, too small a machine."""

    status = 2


class TryAgain(StageError):
    """Nothing to fix: another process has what this one needs, or a device was lost. Run the command again."""

    status = 75  # EX_TEMPFAIL of sysexits.h


class Stopped(StageError):
    """A signal ended the work early. The same command resumes after the last complete epoch."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, 128 + signal_number)  # as shells report it


def status_of(failures: Iterable[int]) -> int:
    """The exit status for several failures: TryAgain's only if none of them needs fixing first."""
    return max(set(failures) - {TryAgain.status}, default=TryAgain.status)


def ending_of(status: int) -> str:
    """How a failed process ended, by its exit status as subprocess gives it: negative for a signal."""
    if status >= 0:
        return f"exit status {status}"
    known = -status in set(signal.Signals)
    name = signal.Signals(-status).name if known else f"signal {-status}"
    return f"killed by {name}" + " (was memory short?)" * (status == -signal.SIGKILL)


def printable(text: str, kept: str = "") -> str:
    """The text with unprintable characters escaped, except those in `kept`."""
    return "".join(each if each.isprintable() or each in kept else ascii(each)[1:-1] for each in text)


@contextlib.contextmanager
def errors_exit(stage: str) -> Iterator[None]:
    """On StageError or Ctrl-C in the body, end the process with one line on standard error and an exit status.

    Exits silently if its output is no longer read, as in `... | head`; says so if the disk is full that it goes to.
    Characters that the output's encoding lacks, perhaps a dash, become question marks.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        yield
        if sys.stdout:  # it may have been closed, as by `>&-`
            sys.stdout.flush()
    except StageError as error:
        print(f"{stage}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.status)
    except KeyboardInterrupt:  # where no Stop handles it
        print(f"{stage}: stopped by Ctrl-C", file=sys.stderr, flush=True)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        _let_go(sys.stdout)
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:  # those of files are BadInput by now, which names them
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or error.filename:
            raise
        _let_go(sys.stdout)
        try:
            told = f"{stage}: {error.strerror}, most likely for its output: free some space"
            print(told, file=sys.stderr, flush=True)
        except OSError:  # the same disk
            _let_go(sys.stderr)
        sys.exit(BadInput.status)


def _let_go(stream: IO[str]) -> None:
    """Let what it could not write go nowhere: Python would try again at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
