"""What a container or a batch system lets this process have of its machine: Linux's control groups, both versions."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def cpus() -> float:
    """How many CPUs' time it gets (`docker run --cpus`); infinite where nothing limits it."""
    found = [math.inf]
    for group in _groups("cpu"):
        for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):  # of version 2, of version 1
            time = _numbers(group, names)
            if len(time) == 2 and min(time) > 0:
                found.append(time[0] / time[1])
    return min(found)


def memory() -> float:
    """How many bytes of memory it gets: the machine's, or fewer (`docker run --memory`, SLURM's `--mem`)."""
    found: list[float] = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for group in _groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, of version 1
            found += [most for most in _numbers(group, [name]) if most > 0]
    return min(found)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's groups for that controller, each followed by those of the groups around it."""
    try:
        lines = OWN.read_text().splitlines()
    except OSError:  # not on Linux
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers or controller in controllers.split(","):  # version 2 names none
            group = GROUPS / controllers / own.lstrip("/")
            yield from (group, *group.parents)


def _numbers(group: Path, names: list[str]) -> list[float]:
    """The numbers in these files; none where one is missing or says "max"."""
    try:
        return [float(each) for name in names for each in (group / name).read_text().split()]
    except (OSError, ValueError):
        return []
