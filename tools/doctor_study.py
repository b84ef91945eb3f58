"""The doctor's checks of the study: the plan, the data, and what training has left in checkpoints/ and metrics/."""

import collections
import os
from collections.abc import Iterator
from pathlib import Path

from lib.card import RunCard
from lib.metrics import RunMetrics, read_metrics
from lib.report.results import read_study
from lib.words import counted
from tools.doctor import BAD, NOTE, OK, Finding
from tools.doctor_project import DATA, METRICS, PLAN, Kept, Project, attempt, size

MAKE_PLAN = "dvc repro plan (or: python -m stages.plan)"
GET_DATA = "dvc repro download (CIFAR10_SOURCE=<folder, archive or https address> names where from)"


def plan(project: Project) -> Iterator[Finding]:
    """Whether the run cards are there and readable."""
    if not project.runs:
        yield Finding(NOTE, "plan", "none yet", MAKE_PLAN)
        return
    for fault in (card for card in project.runs.values() if isinstance(card, str)):
        yield Finding(BAD, "plan", fault, MAKE_PLAN)
    study = attempt(read_study, PLAN / "study.json")
    epochs = sorted({card.epochs for card in project.cards.values()})
    found = f"{len(project.cards)} of {len(project.runs)} cards sound" + ", " * bool(epochs)
    found += " or ".join(counted(each, "epoch") for each in epochs)
    if isinstance(study, str):
        yield Finding(NOTE, "plan", f"{found}; no sound study.json, which download and report need", MAKE_PLAN)
    else:
        yield Finding(OK, "plan", f"{found}, preset {study['preset']}")


def data(project: Project) -> Iterator[Finding]:
    """Whether the data set is there, is the one wanted, and is intact to the bit."""
    named = os.environ.get("CIFAR10_SOURCE")
    if not isinstance(project.data, str):
        train_set, test_set = (f"{len(split.labels):,}" for split in (project.data.train, project.data.test))
        yield Finding(
            OK, "data", f"{project.data.name}, intact, {train_set} training and {test_set} test images asked for"
        )
    elif DATA.exists():
        yield Finding(BAD, "data", project.data, "chmod -R u+w .dvc/cache; dvc repro -f -s download")
    elif named and "://" not in named and not Path(named).exists():
        yield Finding(
            BAD, "data", f"none yet, and CIFAR10_SOURCE is {named}, which is not there", "unset CIFAR10_SOURCE"
        )
    else:
        yield Finding(NOTE, "data", f"none yet; CIFAR10_SOURCE is {named or 'not set: the official address'}", GET_DATA)


def checkpoints(project: Project) -> Iterator[Finding]:
    """What training can resume from, what of it is damaged, and what no card uses: a line per run."""
    known = bool(project.checkpoints)  # otherwise it is unknown which of them the plan uses
    foreign = collections.defaultdict(list)
    for kept in project.kept:
        if kept.of_plan or not known or kept.holder:
            yield of_use(kept, project.cards.get(kept.run))
        else:
            foreign[kept.run].append(kept)
    for run, others in foreign.items():
        found = (
            f"{run}: {counted(len(others), 'folder')} of other parameters, data or code, which training leaves alone"
        )
        found += f"; up to epoch {max(each.newest() for each in others)}, {size(sum(each.size for each in others))}"
        yield Finding(NOTE, "checkpoints", found, f"to clear: rm -r {' '.join(str(each.folder) for each in others)}")
    total = f"{counted(len(project.kept), 'folder')}, {size(sum(each.size for each in project.kept))}"
    if project.kept and not known:
        found = f"{total}; which of them the plan uses shows when plan and data are there"
        yield Finding(NOTE, "checkpoints", found, "dvc repro plan download")
    else:
        yield Finding(OK, "checkpoints", f"{total} in {project.root.absolute()}" if project.kept else "none yet")


def of_use(kept: Kept, card: RunCard | None) -> Finding:
    """The line for a folder that a run resumes from, or may."""
    newest = kept.newest(card.epochs if card and kept.of_plan else 10**9)
    found = f"{kept.run}: " + (f"epoch {newest}" if newest else "no sound checkpoint")
    found += f" of {card.epochs}" if card and kept.of_plan and newest else ""
    found += f", {size(kept.size)}" + (f", being trained by {kept.holder}" if kept.holder else "")
    if not (kept.spoilt or kept.litter):
        return Finding(OK, "checkpoints", found + (", intact" if newest else ""))
    waste = " ".join(str(path) for path in (*kept.spoilt, *kept.litter))
    found += f"; {len(kept.spoilt)} damaged, {len(kept.litter)} set aside or half-written"
    lost = kept.spoilt and not newest  # training starts over; otherwise it resumes from what is sound
    return Finding(BAD if lost else NOTE, "checkpoints", found, f"rm {waste}")


def metrics(project: Project) -> Iterator[Finding]:
    """Whether the results can be read, are the plan's, and were all produced under the same circumstances."""
    read = {path: attempt(read_metrics, path) for path in sorted(METRICS.glob("*.json"))}
    for path, fault in read.items():
        if isinstance(fault, str):
            yield Finding(BAD, "metrics", fault, f"rm {path} && dvc repro")
    sound = [each for each in read.values() if not isinstance(each, str)]
    ours = [each for each in sound if belongs(each, project)]
    finished = sum(each.finished for each in ours)
    if project.runs:
        there = f"{finished} of {counted(len(project.runs), 'planned run')} finished"
    else:
        there = f"{counted(len(sound), 'file')}, and no plan to compare {'it' if len(sound) == 1 else 'them'} with"
    yield Finding(OK, "metrics", there if sound else "none yet")
    if project.cards and len(ours) < len(sound):
        others = " ".join(str(METRICS / f"{each.name}.json") for each in sound if each not in ours)
        found = f"{counted(len(sound) - len(ours), 'file')} of runs that are not the plan's"
        yield Finding(NOTE, "metrics", found, f"dvc repro, or if they are not wanted: rm {others}")
    made = collections.Counter(
        f"{each.facts.dataset} with PyTorch {each.facts.torch} on {each.facts.device}" for each in ours or sound
    )
    if len(made) > 1:
        found = "trained differently: " + "; ".join(f"{each} ({counted(n, 'run')})" for each, n in made.items())
        yield Finding(
            NOTE, "metrics", found, "to train one anew: rm -r checkpoints/<run>-* && dvc repro -f -s train@<run>"
        )


def belongs(run: RunMetrics, project: Project) -> bool:
    """Whether the plan has this run, with the same depth and training."""
    card = project.cards.get(run.name)
    return card is not None and run.facts.as_planned(card)
