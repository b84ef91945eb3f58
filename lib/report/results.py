"""plan/study.json and metrics/ -> the study's runs, checked to belong to it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.card import CURE, RunName, is_wanted
from lib.errors import BadInput
from lib.files import failures_named, read_json
from lib.metrics import RunMetrics, read_metrics
from lib.paper import ordering_name
from lib.recipe import is_sound
from lib.stats.arms import BASELINE
from lib.words import some


def read_study(path: Path) -> dict[str, Any]:
    """What plan wrote of the study. Raises BadInput that names the file if it is malformed."""
    study = read_json(path, CURE)
    try:
        runs, report = study["runs"], study["report"]
        names = [RunName.parse(run) for run in runs]
        sound = (
            type(runs) is list
            and all(re.fullmatch(r"[a-z0-9_]+-[a-z0-9_]+-[0-9]+", run) for run in runs)
            and all(ordering_name(name.ordering) for name in names)
            and 0 < len(runs) == len(set(runs))
            and all(type(study[key]) is int and study[key] > 0 for key in ("epochs", "train_images", "test_images"))
            and all(re.fullmatch(r"[a-z0-9_]+", study[key]) for key in ("preset", "dataset"))
            and {name.network for name in names} <= study["networks"].keys()
            and all(each.keys() == {"block", "depth"} for each in study["networks"].values())
            and is_sound(study["recipe"])
            and type(report["figure_dpi"]) is int
            and 50 <= report["figure_dpi"] <= 600
            and type(report["accuracy_from"]) in (int, float)
            and 0 <= report["accuracy_from"] < 1
        )
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):  # from whatever is there instead
        sound = False
    if not sound:
        raise BadInput(f"{path} is not what plan writes: {CURE}")
    return study


def planned_arms(study: dict[str, Any]) -> list[tuple[str, str]]:
    """The study's arms, each by network and ordering, trained yet or not."""
    return list(dict.fromkeys(RunName.parse(run)[:2] for run in study["runs"]))


def comparisons_of(study: dict[str, Any]) -> int:
    """How many arms the study will compare with their network's baseline, trained yet or not."""
    arms = planned_arms(study)
    return sum(ordering != BASELINE and (network, BASELINE) in arms for network, ordering in arms)


def collect(study: dict[str, Any], folder: Path) -> list[RunMetrics]:
    """The study's runs that exist; missing ones, and files of other runs, are named in a line each."""
    with failures_named(folder):
        foreign = sorted({path.stem for path in folder.glob("*.json")} - set(study["runs"]))
        missing = [run for run in study["runs"] if not (folder / f"{run}.json").exists()]
    if foreign:
        print(f"report: left out, since the study does not name them: {some(foreign)}")
    if missing:
        count = f"{len(missing)} of {len(study['runs'])} runs"
        print(f"report: {count} are missing, train them with `dvc repro`: {some(missing)}")
    runs = read_runs(study, folder)
    if not runs:
        raise BadInput(f"{folder} holds no run of the study: train them with `dvc repro`")
    return runs


def read_runs(study: dict[str, Any], folder: Path) -> list[RunMetrics]:
    """The study's runs that exist, in its order.

    Raises BadInput for one that is damaged, was trained differently than the study says, or on other data than the
    rest.
    """
    runs = _there(study, folder)
    for path, run in runs.items():
        if difference := unlike(run, study):
            raise BadInput(f"{path} was trained with {difference}: retrain it with `dvc repro`")
    return _of_one_data_set(runs)


def read_so_far(tool: str, study: dict[str, Any], folder: Path) -> list[RunMetrics]:
    """The study's existing runs that were trained as it says; the others are named in a line.

    Raises BadInput for one that is damaged or on other data than the rest.
    """
    there = _there(study, folder)
    otherwise = [run.name for run in there.values() if unlike(run, study)]
    if otherwise:
        print(f"{tool}: left out, since they were trained otherwise than the study says: {some(otherwise)}")
    return _of_one_data_set({path: run for path, run in there.items() if run.name not in otherwise})


def _there(study: dict[str, Any], folder: Path) -> dict[Path, RunMetrics]:
    paths = [folder / f"{run}.json" for run in study["runs"]]
    with failures_named(folder):  # no permission to enter it
        paths = [path for path in paths if path.exists()]
    return {path: read_metrics(path) for path in paths}


def unlike(run: RunMetrics, study: dict[str, Any]) -> str | None:
    """How a run's training differs from what the study says; None if it does not."""
    same = ("block", "depth", "epochs", "train_images", "test_images")
    told = {key: getattr(run.facts, key) for key in same} | run.facts.recipe
    if not is_wanted(run.facts.dataset, study["dataset"]):
        told = {"dataset": run.facts.dataset}
    wanted = study | study["networks"][run.facts.network] | study["recipe"]
    differs = [key for key, value in told.items() if value != wanted.get(key)]
    return f"{differs[0]} {told[differs[0]]}, the study's runs have {wanted.get(differs[0])}" if differs else None


def _of_one_data_set(runs: Mapping[Path, RunMetrics]) -> list[RunMetrics]:
    """The runs. Raises BadInput if they are on two data sets, as `dataset: auto` may lead to."""
    for path, run in runs.items():
        first, other = next(iter(runs.items()))
        if run.facts.dataset != other.facts.dataset:
            raise BadInput(
                f"{path} is of the {run.facts.dataset} data set, {first} of the {other.facts.dataset} one: train them "
                "on the same with `dvc repro`"
            )
    return list(runs.values())
