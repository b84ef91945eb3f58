"""lib/memory.py: what a step frees, the next one takes without asking the system."""

import platform
import subprocess
import sys
import textwrap

import pytest

PAGES_PER_STEP = 40 * 2**21 // 4096  # of the tensors below


def faults_per_step(before: str) -> float:
    """How many pages the system made anew in each step of a process that first does `before`."""
    code = f"""
        import resource
        import torch
        from lib.memory import keep_freed_memory
        torch.set_num_threads(1)
        {before}
        def step():
            held = [torch.ones(2**21, dtype=torch.uint8) for _ in range(40)]
            while held:
                held.pop()
        def faults():
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        step(), step()
        start = faults()
        for _ in range(10):
            step()
        print((faults() - start) / 10)
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    return float(result.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that hands memory back")
def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    assert faults_per_step("pass") > 0.5 * PAGES_PER_STEP  # else there would be nothing to do
    assert faults_per_step("keep_freed_memory()") < 0.01 * PAGES_PER_STEP


def test_elsewhere_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib import memory

    monkeypatch.setattr(memory.sys, "platform", "darwin")
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: pytest.fail("asked"))
    memory.keep_freed_memory()
