"""Figure 4 as plain data, for a script to draw: every run's curve, and per ordering the mean over seeds."""

from collections.abc import Sequence
from typing import Any

from lib.metrics import RunMetrics
from lib.paper import ordering_name, split_of
from lib.report.look import looks
from lib.report.panels import FEW_EPOCHS, LEAST_HEIGHT, Panel, comparable, orderings_of, panels_of
from lib.stats.sample import Sample
from lib.table1 import Row


def figure4(runs: Sequence[RunMetrics], table: Sequence[Row], accuracy_from: float) -> dict[str, Any]:
    """The panels, orderings and seeds, in order of first appearance among the runs, as JSON values.

    Accuracies are fractions of 1, on the `split`. `accuracy_from` is the lower end of their axis; `table` has the
    paper's values.
    """
    orderings = orderings_of(runs)
    paper = {(row.network, row.ordering): row.paper for row in table}
    return {
        "split": split_of(runs[0].facts.dataset),
        "accuracyFrom": accuracy_from,
        "leastHeight": LEAST_HEIGHT,
        "fewEpochs": FEW_EPOCHS,
        "epochs": max(run.facts.epochs for run in runs),
        "seeds": list(dict.fromkeys(run.facts.seed for run in runs)),
        "orderings": [
            {"name": ordering_name(ordering), "colour": look.colour, "dashes": look.dashes}
            for ordering, look in zip(orderings, looks(len(orderings)), strict=True)
        ],
        "panels": [
            {
                "name": panel.name,
                "title": panel.title,
                "curves": [
                    _curve(panel, ordering) | {"paper": paper.get((panel.runs[0].facts.network, ordering))}
                    for ordering in orderings
                ],
            }
            for panel in panels_of(runs)
        ],
    }


def _curve(panel: Panel, ordering: str) -> dict[str, Any]:
    """A network in one ordering: `mean` and `sd` over seeds by epoch (sd None for one run), and every run."""
    runs = [run for run in panel.runs if run.facts.ordering == ordering]
    histories = [[record.test_accuracy for record in run.history] for run in comparable(runs)]
    by_epoch = [Sample(values) for values in zip(*histories, strict=True)]
    return {
        "mean": [_short(sample.mean) for sample in by_epoch],
        "sd": [_short(sample.sd) for sample in by_epoch],
        "runs": [
            {"name": run.name, "seed": run.facts.seed, "accuracy": [record.test_accuracy for record in run.history]}
            for run in runs
        ],
    }


def _short(value: float | None) -> float | None:
    """Rounded: digits that nobody sees would be most of the page's data."""
    return None if value is None else round(value, 6)
