"""Table 1: test accuracy at the end of training, compared with the network's baseline and the paper."""

import dataclasses
from collections.abc import Sequence

import pandas as pd

from lib.metrics import RunMetrics
from lib.paper import data_name, model_name, table1_accuracy, unit_name
from lib.report import cells, markdown
from lib.stats.arms import Arm, arms_of
from lib.stats.paired import Comparison, against_baselines, corrected, several
from lib.stats.sample import Sample
from lib.words import counted

NAMES = ["Model", "Depth", "Layers in Residual Unit"]
PAPER = ["Paper", "Difference to paper"]
DECIMALS = 4  # as in the paper

ONE_SEED = (
    "No ordering has two finished seeds in common with its network's baseline, so chance cannot be judged: this table "
    "supports no claim about which ordering is better."
)
COMPARED = (
    "Mean ± standard deviation over n seeds, each of the last epoch. Difference to baseline: mean over the seeds that "
    "both have finished, arm minus its network's baseline, paired by seed; its 95 % t-interval; wins, the seeds in "
    "which the arm is better; p of the paired t-test, two-sided, Holm-corrected for the study's {comparisons}. "
    "Metric and comparisons are the program's, none picked by its result; p holds where the number of seeds was fixed "
    "beforehand too. Bold where p < 0.05, for better or worse; a dash where the data cannot say."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """A network in one ordering. Accuracies are fractions of 1."""

    network: str
    ordering: str
    model: str
    depth: int
    layers: str  # "2x{ReLU-IC-Conv2D}", or "Baseline"
    accuracy: Sample  # of the finished runs, at the last epoch
    to_baseline: Comparison | None  # None for a baseline, and where the network has none
    paper: float | None

    @property
    def to_paper(self) -> float | None:
        return None if self.accuracy.mean is None or self.paper is None else self.accuracy.mean - self.paper


def rows(runs: Sequence[RunMetrics], planned: int = 0) -> list[Row]:
    """The table's rows, a row per arm, in order of first appearance among the runs.

    `planned` is how many comparisons with a baseline the study will have, whether or not their runs exist yet.
    An unfinished run has no accuracy "at the end of training" yet, and counts as missing. Raises BadInput where a seed
    occurs twice.
    """
    arms = arms_of(runs)
    compared = corrected(against_baselines(arms, accuracy), planned)
    return [_row(arm, comparison) for arm, comparison in zip(arms, compared, strict=True)]


def accuracy(run: RunMetrics) -> float:
    """The study's measure of a run, fixed in advance: the last epoch's test accuracy."""
    return run.test_accuracy


def _row(arm: Arm, comparison: Comparison | None) -> Row:
    facts = arm.facts
    return Row(
        facts.network,
        facts.ordering,
        model_name(facts.block),
        facts.depth,
        unit_name(facts.block, facts.ordering),
        Sample(tuple(arm.measured(accuracy).values())),
        comparison,
        table1_accuracy(facts.block, facts.depth, facts.ordering) if facts.dataset == "cifar10" else None,
    )


def frame(table: Sequence[Row], dataset: str) -> pd.DataFrame:
    """The whole table as text, empty where there is nothing to say."""
    heads = [*NAMES, _data(dataset), "n", *cells.COMPARISON, *PAPER]
    return pd.DataFrame(
        [
            [
                *(row.model, str(row.depth), row.layers),
                *(cells.mean_and_sd(row.accuracy, DECIMALS), str(row.accuracy.n)),
                *cells.comparison(row.to_baseline, DECIMALS),
                *(cells.number(row.paper, DECIMALS), cells.number(row.to_paper, DECIMALS, "+")),
            ]
            for row in table
        ],
        columns=heads,
    )


def _data(dataset: str) -> str:
    return data_name(dataset).replace("-", "")


def to_csv(table: Sequence[Row], dataset: str) -> str:
    """The table as CSV, one number per field; missing values are empty fields."""
    heads = [*NAMES, _data(dataset), "Standard deviation", "n", *cells.NUMBERS, *PAPER]
    fields = [
        [
            *(row.model, row.depth, row.layers),
            *(cells.number(each, 6) for each in (row.accuracy.mean, row.accuracy.sd)),
            row.accuracy.n,
            *cells.numbers(row.to_baseline, 6),
            *(cells.number(row.paper, DECIMALS), cells.number(row.to_paper, 6)),
        ]
        for row in table
    ]
    return pd.DataFrame(fields, columns=heads).to_csv(index=False, lineterminator="\n")


def reading(table: Sequence[Row]) -> str:
    """What the table can show and how to read it, in a few sentences."""
    compared = [row.to_baseline for row in table if row.to_baseline]
    if not several(compared):
        return ONE_SEED
    family = compared[0].family
    return COMPARED.format(comparisons=counted(family, "comparison"))


def to_markdown(table: Sequence[Row], dataset: str, caption: str) -> str:
    """The table as Markdown under its caption, and how to read it.

    In two parts, neither wider than a terminal: the paper's columns, then the comparisons with the baselines if there
    are two seeds; with one seed they would be one number minus another.
    """
    whole = frame(table, dataset)
    parts = [f"{caption}\n", markdown.table(whole[[*NAMES, _data(dataset), "n", *PAPER]], NAMES[:2])]
    compared = [row.to_baseline for row in table if row.to_baseline]
    if several(compared):
        part = whole.loc[[row.to_baseline is not None for row in table], [*NAMES, *cells.COMPARISON]]
        part = markdown.bold(part, cells.COMPARISON[0], [each.supported for each in compared])
        parts.append(markdown.table(part, NAMES[:2]))
    return "\n".join([*parts, f"{reading(table)}\n"])
