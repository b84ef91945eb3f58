"""Runs side by side in one process: they take turns at every step, each on a GPU stream of its own."""

import contextlib
import sys
from collections.abc import Iterator, Mapping

import torch

from lib.errors import StageError, Stopped, status_of

AT_ONCE = 8  # more would share a GPU without filling it better


def in_turns(runs: Mapping[str, Iterator[None]]) -> None:
    """Advance all runs, by name, in turn, a step each: at most AT_ONCE, and on a GPU as many as fit its memory.

    On a CPU that gains nothing, and memory is not checked: give it few.

    A run that fails is named, and the others go on. Raises StageError at the end if any did, and Stopped at once if the
    process is to stop.
    """
    waiting, active = list(runs), dict[str, torch.cuda.Stream | None]()
    failed: dict[str, StageError] = {}
    largest = 0  # bytes of GPU memory that a run took
    while waiting or active:
        has_room = bool(waiting) and len(active) < AT_ONCE
        free = free_bytes() if has_room else 0  # asking takes time at every step, and matters only before a start
        starts = has_room and (not active or free >= 2 * largest)  # the next may be twice as large as those before
        if starts:
            active[waiting.pop(0)] = _stream()
        advanced = [list(active)[-1]] if starts else list(active)
        for name in advanced:
            try:
                with torch.cuda.stream(stream) if (stream := active[name]) else contextlib.nullcontext():
                    next(runs[name])
            except StopIteration:
                del active[name]
            except Stopped:
                raise
            except StageError as error:
                del active[name]
                failed[name] = error.with_traceback(None)
                error.__context__ = error.__cause__ = None  # without its frames, the run's memory is freed
                if len(runs) > 1:
                    print(f"train: {name}: {error}", file=sys.stderr, flush=True)
        if starts:
            largest = max(largest, free - free_bytes())
        if waiting and any(name not in active for name in advanced):
            _give_back()
    _raise_failures(failed, len(runs))


def _raise_failures(failed: Mapping[str, StageError], of: int) -> None:
    if len(failed) == of == 1:
        raise next(iter(failed.values()))
    if failed:
        raise StageError(
            f"{len(failed)} of {of} runs failed: {', '.join(failed)}" + "; the others are done" * (len(failed) < of),
            status_of(error.status for error in failed.values()),
        )


def free_bytes() -> int:
    """The GPU's free memory; 0 if there is none or it does not answer, which the runs will meet and explain."""
    with contextlib.suppress(RuntimeError):
        return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else 0
    return 0


def _give_back() -> None:
    """Give the GPU the memory of runs that have ended: PyTorch keeps it for itself, and it would not count as free."""
    with contextlib.suppress(RuntimeError):
        torch.cuda.empty_cache()


def _stream() -> torch.cuda.Stream | None:
    """A stream for a run; None where there is no GPU or it does not answer."""
    with contextlib.suppress(RuntimeError):
        return torch.cuda.Stream() if torch.cuda.is_available() else None
    return None
