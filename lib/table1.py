"""Table 1: test accuracy at the end of training, beside the study's."""

import dataclasses
import statistics
from collections.abc import Sequence

import pandas as pd

from lib.metrics import RunMetrics
from lib.paper import data_name, model_name, ordering_name, table1_accuracy

LAYERS_IN_RESIDUAL_UNIT = {"basic": 2, "bottleneck": 3}


@dataclasses.dataclass(frozen=True)
class Row:
    """A network in one ordering. Accuracies are fractions of 1, or None where there is none."""

    model: str
    depth: int
    layers: str  # "2x{ReLU-IC-Conv2D}", or "Baseline"
    accuracy: float | None  # the mean over seeds, of the last epoch's
    paper: float | None

    @property
    def difference(self) -> float | None:
        return None if self.accuracy is None or self.paper is None else self.accuracy - self.paper


def rows(runs: Sequence[RunMetrics]) -> list[Row]:
    """The table's rows, in the order in which the runs first name a network and an ordering.

    A run that is not finished has no accuracy "at the end of training" yet, and counts as missing.
    """
    kinds = dict.fromkeys((run.facts.network, run.facts.ordering) for run in runs)
    return [_row([run for run in runs if (run.facts.network, run.facts.ordering) == kind]) for kind in kinds]


def _row(runs: Sequence[RunMetrics]) -> Row:
    facts = runs[0].facts
    name = ordering_name(facts.ordering)
    finished = [run.test_accuracy for run in runs if run.finished]
    return Row(
        model_name(facts.block),
        facts.depth,
        name if facts.ordering == "baseline" else f"{LAYERS_IN_RESIDUAL_UNIT[facts.block]}x{{{name}}}",
        statistics.mean(finished) if finished else None,
        table1_accuracy(facts.block, facts.depth, facts.ordering) if facts.dataset == "cifar10" else None,
    )


def _frame(table: Sequence[Row], dataset: str) -> pd.DataFrame:
    """The table as text, with the paper's columns first."""
    heads = ["Model", "Depth", "Layers in Residual Unit", data_name(dataset).replace("-", ""), "Paper", "Difference"]
    cells = [
        [row.model, str(row.depth), row.layers, *map(_text, (row.accuracy, row.paper)), _text(row.difference, sign="+")]
        for row in table
    ]
    return pd.DataFrame(cells, columns=heads)


def _text(value: float | None, sign: str = "") -> str:
    return "" if value is None else f"{value:{sign}.4f}"


def to_csv(table: Sequence[Row], dataset: str) -> str:
    """The table as CSV; an accuracy that is not there is an empty field."""
    return _frame(table, dataset).to_csv(index=False, lineterminator="\n")


def to_markdown(table: Sequence[Row], dataset: str, caption: str) -> str:
    """The table as Markdown under its caption, columns aligned so that it reads as plain text too.

    As in the paper, a model and a depth are named once, in the first of their rows.
    """
    frame = _frame(table, dataset).replace("", "–")
    repeated = frame[["Model", "Depth"]].eq(frame[["Model", "Depth"]].shift())
    frame.loc[repeated.all(axis=1), "Depth"] = ""
    frame.loc[repeated["Model"], "Model"] = ""
    lines = [list(frame.columns), *frame.values.tolist()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(frame.columns))]
    texts = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    texts.insert(1, ["-" * (width - 1) + (":" if column > 2 else "-") for column, width in enumerate(widths)])
    return f"{caption}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in texts)
