"""What a container or batch system lets this process use of its machine: Linux's control groups, version 2."""

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cpus() -> float:
    """How many CPUs' time it may use (`docker run --cpus`); infinite if nothing limits it."""
    return min(_limits("cpu.max"), default=math.inf)


def memory() -> float:
    """How many bytes of memory it may use: the machine's, or fewer (`docker run --memory`, SLURM's `--mem`)."""
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *_limits("memory.max")])


def _limits(name: str) -> Iterator[float]:
    """The limits in this file of the process's group and its ancestors: "limit", or "quota period" of a CPU."""
    with contextlib.suppress(OSError, ValueError):
        (own,) = (line.removeprefix("0::/") for line in OWN.read_text().splitlines() if line.startswith("0::/"))
        for group in (GROUPS / own, *(GROUPS / own).parents):
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):  # not there, or "max"
                most, *period = map(float, (group / name).read_text().split())
                yield most / period[0] if period else most
