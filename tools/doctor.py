"""Check this machine and this project: changes nothing, and says how to fix what is wrong.

One line per finding: a mark (ok, note, BAD), the subject, what was found, and after -> the command that fixes it.
Exit status 0 if nothing is BAD, else 1. Needs neither DVC nor pydantic, so it also works on a bare GPU machine.
"""

# Until Python's own version is known to be right: standard library only, and nothing an older Python cannot parse.
from __future__ import annotations

import argparse
import dataclasses
import fcntl
import importlib
import importlib.metadata
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OK, NOTE, BAD = "ok", "note", "BAD"
PYTHONS = ((3, 11), (3, 13))  # first and last
OLDEST_TORCH = (2, 11)
TRAINING_NEEDS = ("torch", "numpy", "tqdm")
DVC_FILES = Path(".dvc", "tmp")
ENVIRONMENT = "make env && source .venv/bin/activate"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One line of the report. Anything not ok has a cure."""

    mark: str
    what: str
    found: str
    cure: str = ""

    def __str__(self) -> str:
        line = f"{self.mark:<4}  {self.what:<11}  {self.found}" + (f"  -> {self.cure}" if self.cure else "")
        return "".join(each if each.isprintable() else " " for each in line)  # names from damaged files may be anything


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tools.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    marks = []
    for finding in findings():
        print(finding, flush=True)  # a check may take seconds
        marks.append(finding.mark)
    print(f"{marks.count(BAD)} BAD, {marks.count(NOTE)} to note, {marks.count(OK)} ok")
    sys.exit(BAD in marks)


def findings() -> Iterator[Finding]:
    """The findings of all checks, one after the other."""
    for check in (python, packages, dvc_version, dvc_rwlock, dvc_lock, dvc_copies):
        yield from guarded(check)
    try:
        capacity = importlib.import_module("tools.doctor_capacity")  # not before: they import torch
        study = importlib.import_module("tools.doctor_study")
    except Exception as error:
        yield Finding(BAD, "study", f"cannot be looked at here ({described(error)})", ENVIRONMENT)
        return
    project = study.Project()
    there = (study.plan, study.data, study.checkpoints, study.metrics)
    for check in (capacity.device, *there, capacity.disk, capacity.time_needed):
        yield from guarded(check, project)


def guarded(check: Callable[..., Iterable[Finding]], *arguments: Any) -> Iterator[Finding]:
    """A check's findings; a check that fails is a finding too."""
    try:
        yield from check(*arguments)
    except Exception as error:
        what = check.__name__.replace("_", " ")
        yield Finding(BAD, what, f"the check failed ({described(error)})", "open an issue with this line")


def described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]


def python() -> Iterator[Finding]:
    """Whether the project is tested with this Python."""
    first, last = (".".join(map(str, version)) for version in PYTHONS)
    found = f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}"
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield Finding(OK, "python", found)
    else:
        yield Finding(BAD, "python", f"{found}; {first} to {last} needed", f"make env PYTHON=python{first}")


def packages() -> Iterator[Finding]:
    """Whether the packages that training needs can be imported, and PyTorch is new enough and the one tested with."""
    for name in TRAINING_NEEDS:
        try:
            importlib.import_module(name)
            version = importlib.metadata.version(name)
        except Exception as error:  # a broken installation may raise anything
            cure = f"{ENVIRONMENT}, or where only training runs: pip install {' '.join(TRAINING_NEEDS)}"
            yield Finding(BAD, name, described(error), cure)
            continue
        yield torch_version(version) if name == "torch" else Finding(OK, name, version)


def torch_version(version: str) -> Finding:
    tested = pinned("torch")
    numbers = re.match(r"(\d+)\.(\d+)", version)
    cure = f"pip install torch=={tested}"
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST_TORCH:
        return Finding(BAD, "torch", f"{version}; {'.'.join(map(str, OLDEST_TORCH))} or later needed", cure)
    if version.split("+")[0] != tested:
        found = f"{version}; tested with {tested}, and results are bit-identical within one version only"
        return Finding(NOTE, "torch", found, cure)
    return Finding(OK, "torch", version)


def pinned(package: str) -> str:
    """The version that requirements.txt pins for a package."""
    found = re.search(rf"^{package}==([^\s;]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    return found[1] if found else "any"


def dvc_version() -> Iterator[Finding]:
    try:
        version = importlib.metadata.version("dvc")
    except importlib.metadata.PackageNotFoundError:
        yield Finding(OK, "dvc", "not installed: fine where only `python -m stages.train` runs")
        return
    if version == pinned("dvc"):
        yield Finding(OK, "dvc", version)
    else:
        yield Finding(NOTE, "dvc", f"{version}; tested with {pinned('dvc')}", f"pip install dvc=={pinned('dvc')}")


def dvc_rwlock() -> Iterator[Finding]:
    """Which processes hold files, by DVC's own record (dvc/rwlock.py); an unreadable one stops every repro."""
    path = DVC_FILES / "rwlock"
    try:
        entries = rwlock_entries(path)
    except ValueError:
        found = f"{path} is {'broken' if path.stat().st_size else 'empty'}: that stops every dvc repro"
        yield Finding(BAD, "dvc rwlock", found, f"rm {path}")
        return
    live = {pid: command for pid, command in entries.items() if alive(pid)}
    for pid, command in live.items():
        found = f"process {pid} ({command}) holds files of the pipeline"
        yield Finding(NOTE, "dvc rwlock", found, f"wait for it; if `ps -p {pid}` shows no dvc: rm {path}")
    if not live:
        yield Finding(OK, "dvc rwlock", "left by a process that ended; DVC clears it" if entries else "free")


def rwlock_entries(path: Path) -> dict[int, str]:
    """The processes in DVC's file, and their commands. Raises ValueError where DVC would reject it."""
    for last in (False, True):
        try:
            return parsed_rwlock(path.read_bytes())
        except FileNotFoundError:
            return {}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            if last:
                raise ValueError("not as DVC writes it") from error
            time.sleep(0.3)  # perhaps DVC was just writing it
    raise AssertionError


def parsed_rwlock(content: bytes) -> dict[int, str]:
    """Raises one of several errors if this is not the JSON that DVC writes."""
    lock = json.loads(content)
    infos = [*lock.get("write", {}).values()]
    infos += [info for readers in lock.get("read", {}).values() for info in readers]
    sound = set(lock) <= {"read", "write"} and all(set(info) == {"pid", "cmd"} for info in infos)
    if not sound or not all(type(info["pid"]) is int and type(info["cmd"]) is str for info in infos):
        raise ValueError
    return {info["pid"]: info["cmd"] for info in infos}


def alive(pid: int) -> bool:
    """Whether there is such a process, determined as DVC does."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def dvc_lock() -> Iterator[Finding]:
    """Whether a DVC command is running now; the kernel releases this lock when its process ends."""
    path = DVC_FILES / "lock"
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # released at once; DVC itself retries for 3 s
    except BlockingIOError:
        pid = path.read_text().strip()
        yield Finding(NOTE, "dvc lock", f"process {pid} runs a DVC command", f"wait for it, or see: ps -p {pid}")
    except FileNotFoundError:
        yield Finding(OK, "dvc lock", "free")
    else:
        yield Finding(OK, "dvc lock", "free")


def dvc_copies() -> Iterator[Finding]:
    """What stopped experiments have left of their temporary copies of the project (`--temp`), data included."""
    copies = [path for path in (DVC_FILES / "exps/standalone").glob("tmp*") if path.is_dir()]
    if copies:
        taken = sum(path.lstat().st_size for copy in copies for path in copy.rglob("*") if path.is_file())
        copy = "copy of an experiment" if len(copies) == 1 else "copies of experiments"
        found = f"{len(copies)} temporary {copy}, {taken / 1e6:,.0f} MB: at work, or stopped"
        yield Finding(NOTE, "dvc exps", found, f"where `ps` shows no dvc: rm -r {DVC_FILES}/exps/standalone/tmp*")


if __name__ == "__main__":
    sys.dont_write_bytecode = True  # "changes nothing" is meant literally
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # end silently when the reader closes the pipe, as in ... | head
    # Not this file's own main: other modules import this one by name, and there should be only one Finding.
    importlib.import_module("tools.doctor").main()
