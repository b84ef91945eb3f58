"""Which machine this is, which code and versions it runs, and how busy it is."""

import os
import platform
import re
from pathlib import Path

import torch
import torchvision

from benchmarks.record import Circumstances
from lib.machine.device import cores
from lib.report.commit import last_commit
from lib.words import counted

CODE = ("lib", "stages", "tools", "benchmarks/*.py")  # what speed and accuracy may depend on


def device_name(device: torch.device) -> str:
    """For a CPU, as "CPU, 2 cores, AMD EPYC, AVX512"; for a GPU, its name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {counted(cores(), 'core')}, {_processor()}, {torch.backends.cpu.get_cpu_capability()}"


def _processor() -> str:
    if (info := Path("/proc/cpuinfo")).exists() and (model := re.search(r"model name\s*:\s*(.+)", info.read_text())):
        return re.sub(r"\((R|TM)\)|\bProcessor\b|\bCPU @.*", "", model[1]).strip()
    return platform.processor() or platform.machine()


def slug(name: str) -> str:
    """A device's name, as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def circumstances(dataset: str) -> Circumstances:
    return Circumstances(
        dataset=dataset,
        commit=_commit(),
        python=platform.python_version(),
        torch=str(torch.__version__),
        torchvision=str(torchvision.__version__),
        load_before=load(),
        load_after=None,
    )


def load() -> float:
    """The machine's load average over the last minute."""
    return round(os.getloadavg()[0], 2)


def _commit() -> str:
    """The last commit that changed the code, and its date; with "modified" where the code differs from it."""
    found = last_commit(CODE)
    return f"{found.sha[:7]} of {found.date}{' modified' * bool(found.changed)}" if found else "unknown"
