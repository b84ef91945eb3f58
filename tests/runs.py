"""Made-up finished runs for the tests of what reports them."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from lib.metrics import EpochRecord, RunFacts, RunMetrics, write_metrics
from lib.recipe import OF_THE_STUDY

NETWORKS = {
    "resnet110": ("basic", 110),
    "resnet164": ("basic", 164),
    "resnetb110": ("bottleneck", 110),
    "resnetb164": ("bottleneck", 164),
}
NETWORKS_PLANNED = {name: {"block": block, "depth": depth} for name, (block, depth) in NETWORKS.items()}
ORDERINGS = ["relu_ic_conv", "ic_conv_relu", "conv_relu_ic", "baseline"]


def recipe_of(ordering: str) -> dict[str, Any]:
    """The study's recipe of an ordering: a baseline has no dropout."""
    return {key: value for key, value in OF_THE_STUDY.items() if key != "dropout_p" or "ic" in ordering.split("_")}


def run_of(network, ordering, seed=0, epochs=3, accuracy=0.5, dataset="cifar10") -> RunMetrics:
    """A run whose test accuracy rises by equal steps to `accuracy`."""
    return run_with([accuracy * (e / epochs) for e in range(1, epochs + 1)], network, ordering, seed, dataset=dataset)


def run_with(
    accuracies: Sequence[float], network="resnet110", ordering="baseline", seed=0, epochs=None, dataset="cifar10"
) -> RunMetrics:
    """A run with these test accuracies; unfinished where it was to have more epochs."""
    block, depth = NETWORKS[network]
    epochs = epochs or len(accuracies)
    facts = RunFacts(
        *(network, block, depth, ordering, seed, dataset, 50_000, 10_000, epochs),
        *(recipe_of(ordering), 1000, "2.14.1", "cpu"),
    )
    history = [EpochRecord(e, 0.001, 1.0, 0.4, 1.1, accuracy) for e, accuracy in enumerate(accuracies, start=1)]
    return RunMetrics(facts, tuple(history))


def arm_of(last: Sequence[float], network="resnet110", ordering="baseline", **facts) -> list[RunMetrics]:
    """An arm: a run per seed 0, 1, ..., by their last epochs' accuracies."""
    return [run_of(network, ordering, seed, accuracy=accuracy, **facts) for seed, accuracy in enumerate(last)]


def with_facts(run: RunMetrics, **changed: Any) -> RunMetrics:
    """The run as if these facts had been others."""
    return dataclasses.replace(run, facts=dataclasses.replace(run.facts, **changed))


def with_p(runs: Iterable[RunMetrics], dropout_p: float) -> list[RunMetrics]:
    """The runs as if trained with this dropout_p."""
    return [with_facts(run, recipe=run.facts.recipe | {"dropout_p": dropout_p}) for run in runs]


def all_runs(**facts) -> list[RunMetrics]:
    """One seed of the whole study, every run of another accuracy."""
    return [
        run_of(network, ordering, accuracy=0.5 + 0.02 * index, **facts)
        for index, (network, ordering) in enumerate((n, o) for n in NETWORKS for o in ORDERINGS)
    ]


def write_study(
    folder: Path, runs: Iterable[RunMetrics], orderings: Sequence[str] = ORDERINGS, **changed: float
) -> None:
    """A project with the repository's parameters, but of three epochs and three seeds, and these runs' metrics."""
    params = yaml.safe_load((Path(__file__).parents[1] / "params.yaml").read_text())
    params |= {"epochs": 3, "seeds": [0, 1, 2], "orderings": list(orderings), **changed}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    for each in runs:
        write_metrics(folder / f"metrics/{each.name}.json", each.facts, each.history)


def lines_of(out: str) -> list[list[str]]:
    """The cells of a printed table, without its head."""
    lines = [line for line in out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
