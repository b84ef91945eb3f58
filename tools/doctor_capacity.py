"""The doctor's checks of the machine against the study: its device, its disks, and the time training will take."""

import dataclasses
import functools
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch

from lib import cifar10, training
from lib.card import RunCard
from lib.checkpoint import KEPT
from lib.errors import StageError
from lib.machine import limits
from lib.machine.device import circumstances, convolves_in_bfloat16, cores, make_deterministic, pick_device, threads_for
from lib.machine.failures import failures_explained
from lib.progress import duration
from lib.words import counted
from stages import train
from tools.doctor import BAD, NOTE, OK, Finding
from tools.doctor_project import DATA, METRICS, MODELS, Project, size
from tools.doctor_study import MAKE_PLAN


def device(project: Project) -> Iterator[Finding]:
    """What training will run on."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus:
        free, total = torch.cuda.mem_get_info()
        others = f"; {gpus} GPUs, of which CUDA_VISIBLE_DEVICES picks" if gpus > 1 else ""
        yield Finding(OK, "device", f"{torch.cuda.get_device_name()}, {size(free)} of {size(total)} free{others}")
        return
    cpu = torch.device("cpu")
    here = circumstances(cpu)
    found = (
        f"CPU, {counted(cores(), 'core')}, {counted(threads_for(None), 'PyTorch thread')}, {here.instructions}, "
        f"{size(limits.memory())} memory"
    )
    if any(card.device == "cuda" for card in project.cards.values()):
        yield Finding(
            BAD, "device", f"{found}; the plan asks for cuda", "device: auto in params.yaml, then dvc repro plan"
        )
    elif shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists():
        why = str(complaints[0].message) if complaints else f"built for CUDA {torch.version.cuda}"
        cure = "nvidia-smi, and a PyTorch for the CUDA it names: https://pytorch.org/get-started/locally"
        yield Finding(NOTE, "device", f"{found}; there is a GPU that PyTorch does not see ({why})", cure)
    elif any(card.precision == "bfloat16" for card in project.cards.values()) and not convolves_in_bfloat16(cpu):
        cure = "precision: float32 in params.yaml, several times as fast here; then dvc repro plan"
        yield Finding(NOTE, "device", f"{found}; the plan asks for bfloat16, which is slow on it", cure)
    else:
        yield Finding(OK, "device", found)


def disk(project: Project) -> Iterator[Finding]:
    """Whether what is still to be written is permitted here, and will fit."""
    needed = bytes_to_write(project)
    disks: dict[int, tuple[Path, int]] = {}  # by file system: a place on it, and the bytes that its folders need
    for folder in needed:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            yield Finding(BAD, "disk", f"{there} is a file where a folder is needed", f"mv {there} {there}.old")
        elif not os.access(there, os.W_OK | os.X_OK):
            yield Finding(BAD, "disk", f"{there} cannot be written", f"chmod u+rwx {there}")
        else:
            place, before = disks.get(there.stat().st_dev, (there.absolute(), 0))
            disks[there.stat().st_dev] = (place, before + needed[folder])
    for place, bytes_needed in disks.values():
        free = shutil.disk_usage(place).free
        found = f"{size(free)} free at {place}, up to {size(bytes_needed)} still to be written"
        if free < bytes_needed:
            yield Finding(BAD, "disk", found, f"make room; what takes it: du -xh -d 1 {place.parent} | sort -h")
        else:
            yield Finding(OK, "disk", found)


def bytes_to_write(project: Project) -> dict[Path, int]:
    """By folder, the bytes that all runs have yet to write: three checkpoints each, counting the one being written."""
    needed = {METRICS: 0, MODELS: 0, project.root: 0, DATA: 0}
    there = {each.folder: each.size for each in project.kept}
    for name, card in project.cards.items():
        weights, checkpoint = bytes_of(dataclasses.replace(card, seed=0))
        if project.done(name) < card.epochs:
            held = there.get(project.checkpoints[name].folder, 0) if name in project.checkpoints else 0
            needed[project.root] += max(0, (KEPT + 1) * checkpoint - held)
        if not (MODELS / f"{name}.pt").exists():
            needed[MODELS] += 2 * weights  # DVC keeps a copy
    if isinstance(project.data, str):
        needed[DATA] = 3 * sum(length for length, _ in cifar10.OFFICIAL_FILES.values())  # archive, files, DVC's copy
    return needed


@functools.cache
def bytes_of(card: RunCard) -> tuple[int, int]:
    """A run's bytes of weights and of a checkpoint; its seed does not matter."""
    with torch.device("meta"):  # takes no memory
        return train.bytes_of(train.model_of(card))


def time_needed(project: Project) -> Iterator[Finding]:
    """About how long the rest of the study takes here, from a step of its first run, timed now."""
    if not project.cards:
        yield Finding(NOTE, "time", "not known without a plan", MAKE_PLAN)
        return
    left = {name: card.epochs - project.done(name) for name, card in project.cards.items()}
    if not any(left.values()):
        yield Finding(OK, "time", "nothing is left to train: `dvc repro` collects the results in seconds")
        return
    first = next(iter(project.cards.values()))
    try:
        with failures_explained(first.batch_size):
            step, where = seconds_per_step(first)
    except StageError as error:
        yield Finding(BAD, "time", str(error), "see `device` above")
        return
    yield estimate(project, left, step, where)


def estimate(project: Project, left: dict[str, int], step: float, where: str) -> Finding:
    """The time for the epochs `left` of each run, if a step of the first run takes `step` seconds."""
    first = next(iter(project.cards.values()))
    seconds = step * sum(work(card, left[name]) for name, card in project.cards.items()) / work(first, 1, steps=1)
    runs = counted(sum(map(bool, left.values())), "run")
    found = f"about {duration(seconds)} on {where} for {runs} that no checkpoint has finished: an estimate"
    found += f", from {step:.3f} s a step of {first.name}"
    if where != "this CPU":
        found += ", alone and plain (captured, and beside others, it takes several times less)"
    if (load := os.getloadavg()[0]) > cores():
        found += f", while the machine is busy (load {load:.0f} on {counted(cores(), 'core')})"
    if where == "this CPU" and seconds > 3600:
        return Finding(NOTE, "time", found, "make rehearsal takes minutes; or train on a machine with a GPU")
    return Finding(OK, "time", found)


def work(card: RunCard, epochs: int, steps: int | None = None) -> int:
    """Steps of that many epochs, times layers: a step's time is about proportional to depth."""
    steps = -(-card.train_images // card.batch_size) if steps is None else steps
    return epochs * steps * card.depth


def seconds_per_step(card: RunCard) -> tuple[float, str]:
    """Seconds per training step on images of noise, and the device's name. Raises StageError."""
    device = pick_device(card.device)
    if device.type == "cpu":
        torch.set_num_threads(threads_for(None))
    make_deterministic()  # as training does; it costs time
    model = train.model_of(card)
    model.to(device).to(memory_format=torch.channels_last)
    images = torch.randn(card.batch_size, 3, 32, 32, device=device).to(memory_format=torch.channels_last)
    batch = images, torch.randint(10, (card.batch_size,), device=device)
    where = "this CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    return training.seconds_per_step(model, train.recipe_of(card), batch), where
