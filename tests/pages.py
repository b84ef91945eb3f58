"""Pages of made-up histories, of any number of networks, orderings, seeds and epochs."""

import math
from typing import Any

from lib import table1
from lib.metrics import EpochRecord, RunFacts, RunMetrics
from lib.recipe import OF_THE_STUDY
from lib.report import claims
from lib.report.page import Page
from stages import report
from tests import runs

NETWORKS = runs.NETWORKS | {"a_network_with_a_long_name_of_its_own": ("basic", 1202), "small": ("bottleneck", 11)}
ORDERINGS = [*runs.ORDERINGS, "relu_dropout_conv_relu_bn_conv_relu"]


def run_of(network: str, ordering: str, seed: int = 0, epochs: int = 12, **facts: Any) -> RunMetrics:
    """A run that rises towards a height of its own; the seed shifts it a little, differently in each run."""
    block, depth = NETWORKS.get(network, ("basic", 8))
    what = {"dataset": "cifar10", "train_images": 50_000, "test_images": 10_000, "recipe": OF_THE_STUDY}
    what |= {"torch": "2.14.1", "device": "cpu"} | facts
    place = ORDERINGS.index(ordering)
    height = 0.7 + 0.02 * place + 0.004 * math.sin(7 * seed + place + depth)
    accuracies = [round(height - 0.3 * math.exp(-4 * epoch / epochs), 4) for epoch in range(1, epochs + 1)]
    return RunMetrics(
        RunFacts(network, block, depth, ordering, seed, epochs=epochs, parameters=1000, **what),
        tuple(EpochRecord(at, 0.001, 1.0, 0.4, 1.1, accuracy) for at, accuracy in enumerate(accuracies, 1)),
    )


def runs_of(networks: int = 4, orderings: int = 4, seeds: int = 1, **facts: Any) -> list[RunMetrics]:
    return [
        run_of(network, ordering, seed, **facts)
        for network in list(NETWORKS)[:networks]
        for ordering in ORDERINGS[:orderings]
        for seed in range(seeds)
    ]


def page_of(shown: list[RunMetrics], /, **study: Any) -> Page:
    """The page that the report stage makes of these runs."""
    told = {
        "preset": "replication",
        "train_images": 50000,
        "test_images": 10000,
        "epochs": shown[0].facts.epochs,
        "report": {"accuracy_from": 0.3},
        "recipe": OF_THE_STUDY,
        "runs": [run.name for run in shown],
        "networks": {run.facts.network: {"block": run.facts.block, "depth": run.facts.depth} for run in shown},
    }
    return report.page(told | study, shown, table1.rows(shown), claims.rows(shown))
