"""What the results are worth: what was run, on which data and machine, and what is missing."""

from collections.abc import Sequence
from typing import Any

from lib.metrics import RunMetrics
from lib.paper import TEST_IMAGES, data_name, ordering_name, split_of
from lib.recipe import departures
from lib.recipe import in_full as recipe_in_full
from lib.report.commit import Commit
from lib.report.panels import orderings_of, panels_of
from lib.stats.arms import arms_of
from lib.words import counted, some

HELD_OUT = (
    "Measured on a validation set, held out of CIFAR-10's training images, not on the test set: good to choose by. "
    "Test what is chosen with dataset: cifar10."
)


def in_a_line(study: dict[str, Any], runs: Sequence[RunMetrics]) -> str:
    """Data, scale, departures from the study, number of runs, software and device: for titles and captions."""
    unlike = "".join(f", {each}" for each in departures(study["recipe"]))
    return (
        f"{data_name(runs[0].facts.dataset)} ({_images(study, runs)}), preset {study['preset']}, "
        f"{counted(study['epochs'], 'epoch')}{unlike}, n = {_seeds(runs)}, "
        f"{counted_runs(study, runs)}, PyTorch {_torches(runs)}, {_devices(runs)}"
    )


def in_full(study: dict[str, Any], runs: Sequence[RunMetrics], commit: Commit | None) -> dict[str, str]:
    """The same and more, by name. `commit` is the code's, or None if unknown."""
    dataset = runs[0].facts.dataset
    images = f"{study['train_images']:,} training and {study['test_images']:,} {split_of(dataset)} images"
    seeds = sorted({run.facts.seed for run in runs})
    return {
        "Preset": study["preset"],
        "Data": f"{data_name(dataset)}, {images}",
        "Networks": ", ".join(panel.network for panel in panels_of(runs)),
        "Orderings": ", ".join(map(ordering_name, orderings_of(runs))),
        "Seeds": ", ".join(map(str, seeds)),
        "Epochs": str(study["epochs"]),
        "Recipe": recipe_in_full(study["recipe"]),
        "Runs": counted_runs(study, runs),
        "PyTorch": _torches(runs),
        "Device": _devices(runs),
        **({"Commit": f"{commit}: the last to change the code"} if commit else {}),
    }


def warnings(study: dict[str, Any], runs: Sequence[RunMetrics]) -> list[str]:
    """What a reader must know before looking at any number."""
    told = []
    dataset = runs[0].facts.dataset
    if split_of(dataset) == "validation":
        told.append(HELD_OUT)
    elif dataset != "cifar10":
        told.append(f"Trained on {data_name(dataset)}, not on CIFAR-10: no evidence about the study.")
    if missing := sorted(set(study["runs"]) - {run.name for run in runs}):
        told.append(f"Missing: {some(missing)}.")
    under_way = [run for run in runs if not run.finished]
    if far := [f"{run.name} ({len(run.history)} of {run.facts.epochs} epochs)" for run in under_way]:
        told.append(f"Under way, and in no table yet: {some(far)}.")
    return told


def counted_runs(study: dict[str, Any], runs: Sequence[RunMetrics]) -> str:
    """How many of the study's runs are finished, and how many are in progress."""
    finished = sum(run.finished for run in runs)
    under_way = f", {len(runs) - finished} under way" * (finished < len(runs))
    return f"{finished} of {counted(len(study['runs']), 'run')}{under_way}"


def _images(study: dict[str, Any], runs: Sequence[RunMetrics]) -> str:
    """The number of training images, and of evaluation images unless they are the whole test set."""
    split, count = split_of(runs[0].facts.dataset), study["test_images"]
    told = "" if (split, count) == ("test", TEST_IMAGES) else f", {count:,} {split} images"
    return f"{study['train_images']:,} training images{told}"


def _seeds(runs: Sequence[RunMetrics]) -> str:
    """How many runs the arms have finished: the fewest, not counting none, and the most if they differ."""
    counts = {len(arm.finished) for arm in arms_of(runs)} - {0} or {0}
    fewest = f"{min(counts)} to " * (len(counts) > 1)
    return fewest + counted(max(counts), "seed")


def _torches(runs: Sequence[RunMetrics]) -> str:
    return " and ".join(sorted({run.facts.torch for run in runs}))


def _devices(runs: Sequence[RunMetrics]) -> str:
    return " and ".join(sorted({run.facts.device for run in runs}))
