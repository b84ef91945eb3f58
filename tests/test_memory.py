"""lib/machine/memory.py: what a step frees, the next one takes without asking the system."""

import os
import platform
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from lib.machine import memory

ROOT = Path(__file__).parents[1]
PAGES_PER_STEP = 40 * 2**21 // 4096  # of the tensors below


def faults_per_step() -> list[float]:
    """How many pages the system makes anew in each step of a process, as it starts and once it keeps freed memory."""
    code = """
        import ctypes
        import resource
        import sys
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE: pages of 4 KB, whatever the kernel prefers
        import torch
        from lib.machine.memory import keep_freed_memory
        torch.set_num_threads(1)
        def step():
            held = [torch.ones(2**21, dtype=torch.uint8) for _ in range(40)]
            while held:
                held.pop()
        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for before in (lambda: None, keep_freed_memory):
            before(), step(), step()
            start = faults()
            for _ in range(10):
                step()
            print((faults() - start) / 10)
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    # What glibc begins with. Unless it is fixed it rises with what is freed, and chance decides what is handed back.
    environment["MALLOC_MMAP_THRESHOLD_"] = str(2**17)
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [float(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that hands memory back")
def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    before, after = faults_per_step()
    assert before > 0.5 * PAGES_PER_STEP  # else there would be nothing to do
    assert after < 0.01 * PAGES_PER_STEP


@pytest.mark.parametrize(
    ("largest", "told"),
    [
        (2**40, [("mmap", 2**30), ("trim", 2**31 - 1)]),
        (2**25, [("mmap", 2**30), ("mmap", 2**25), ("trim", 2**31 - 1)]),
        (0, [("mmap", 2**30), ("mmap", 2**25)]),  # trimming alone would make it worse
    ],
)
def test_a_libc_is_told_to_keep_blocks_as_large_as_it_takes(
    largest: int, told: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def mallopt(key: int, value: int) -> int:
        name = {memory.M_MMAP_THRESHOLD: "mmap", memory.M_TRIM_THRESHOLD: "trim"}[key]
        asked.append((name, value))
        return int(name == "trim" or value <= largest)

    monkeypatch.setattr(memory.sys, "platform", "linux")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert asked == told


def test_without_such_a_libc_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace())
    memory.keep_freed_memory()
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("asked"))
    memory.keep_freed_memory()
