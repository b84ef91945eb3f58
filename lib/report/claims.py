"""The 2021 study's claims of faster and more stable training, measured: histories -> rows -> Markdown, CSV."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

import pandas as pd

from lib.metrics import RunMetrics
from lib.paper import model_name, split_of, unit_name
from lib.report import cells, markdown
from lib.stats import convergence
from lib.stats.arms import arms_of
from lib.stats.paired import Comparison, against_baselines, corrected, several
from lib.stats.sample import Sample
from lib.table1 import NAMES

ONE_SEED = (
    "No ordering has two finished seeds in common with its network's baseline, so chance cannot be judged: these "
    "numbers support no claim about which ordering converges faster or more steadily."
)
MEASURED = (
    "Epochs to a level: the first at whose end the {split} accuracy is at least that. Where a run never gets there: "
    "the median of all runs (reached/n), such a run counted as later than any other, and no test, only wins. Area "
    "under the curve: the mean height of the curve of {split} accuracy. Late epoch-to-epoch change: the mean absolute "
    "change of {split} accuracy from an epoch to the next, after half the training; while a curve still rises, its "
    "rise is part of that."
)
COMPARED = (
    "Mean ± standard deviation over n seeds. Differences: arm minus its network's baseline, paired by seed, with the "
    "95 % t-interval; wins, the seeds in which the arm is better; p of the paired t-test, two-sided, Holm-corrected "
    "for all comparisons of the claim. Measures and comparisons are the program's, none picked by its result; p holds "
    "where the number of seeds was fixed beforehand too. Bold where p < 0.05, for better or worse; a dash where the "
    "data cannot say."
)

LEVELS = (0.70, 0.75, 0.80)  # fixed in advance: levels chosen from the curves could favour an arm


@dataclasses.dataclass(frozen=True)
class Measure:
    """A number per run that quantifies a claim."""

    claim: str
    title: str
    of_accuracies: Callable[[Sequence[float]], float | None]
    higher_is_better: bool = False
    of_epochs: bool = False  # counted in epochs; else a fraction of 1, like accuracies

    @property
    def decimals(self) -> int:
        return 1 if self.of_epochs else 4

    def __call__(self, run: RunMetrics) -> float | None:
        return self.of_accuracies([record.test_accuracy for record in run.history])


FASTER, STEADIER = "Faster convergence", "More stable training"
AREA = Measure(FASTER, "Area under the curve", convergence.area_under_curve, higher_is_better=True)
LATE_CHANGE = Measure(STEADIER, "Late epoch-to-epoch change", convergence.late_change)
MEASURES = (
    *(
        Measure(FASTER, f"Epochs to {100 * level:.0f} %", partial(convergence.epochs_to_reach, level), of_epochs=True)
        for level in LEVELS
    ),
    AREA,
    LATE_CHANGE,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One measure of one arm."""

    measure: Measure
    network: str
    ordering: str
    dataset: str
    model: str
    depth: int
    layers: str  # as in Table 1
    epochs: int
    sample: Sample  # of its finished runs
    to_baseline: Comparison | None  # None for a baseline, and where the network has none

    @property
    def text(self) -> str:
        """Mean ± standard deviation; if some run did not reach the level, the median and how many did."""
        if self.sample.censored:
            return cells.median_and_reached(self.sample, self.measure.decimals, self.epochs)
        return cells.mean_and_sd(self.sample, self.measure.decimals)


def rows(runs: Sequence[RunMetrics], planned: int = 0) -> list[Row]:
    """A row per measure and arm: measure by measure, arms in order of first appearance among the runs.

    Holm's correction covers all comparisons of a claim: whichever measure, network and ordering might be quoted in its
    support is one of them. `planned` is how many arms the study will compare with a baseline, whether or not their runs
    exist yet. Raises BadInput where a seed occurs twice.
    """
    arms = arms_of(runs)
    claims = {claim: [each for each in MEASURES if each.claim == claim] for claim in (m.claim for m in MEASURES)}
    table = []
    for measures in claims.values():
        compared = [each for m in measures for each in against_baselines(arms, m, m.higher_is_better)]
        family = corrected(compared, planned * len(measures))
        kinds = [(measure, arm) for measure in measures for arm in arms]
        for (measure, arm), comparison in zip(kinds, family, strict=True):
            facts = arm.facts
            sample = Sample(tuple(arm.measured(measure).values()))
            named = (facts.dataset, model_name(facts.block), facts.depth, unit_name(facts.block, facts.ordering))
            table.append(Row(measure, facts.network, facts.ordering, *named, facts.epochs, sample, comparison))
    return table


def frame(table: Sequence[Row]) -> pd.DataFrame:
    """The whole table as text, a row per measure and arm, empty where there is nothing to say."""
    heads = ["Claim", "Measure", *NAMES, "Mean ± sd", "n", *cells.COMPARISON]
    return pd.DataFrame(
        [
            [
                *(row.measure.claim, row.measure.title, row.model, str(row.depth), row.layers),
                *(row.text, str(row.sample.n)),
                *cells.comparison(row.to_baseline, row.measure.decimals),
            ]
            for row in table
        ],
        columns=heads,
    )


def overview(table: Sequence[Row]) -> pd.DataFrame:
    """The measures side by side as text, a row per arm."""
    lines = []
    for kind in dict.fromkeys((row.network, row.ordering) for row in table):
        rows_of = [row for row in table if (row.network, row.ordering) == kind]
        first = rows_of[0]
        runs = max(row.sample.n for row in rows_of)  # a run of one epoch has no curve, but counts
        lines.append([first.model, str(first.depth), first.layers, str(runs), *(row.text for row in rows_of)])
    return pd.DataFrame(lines, columns=[*NAMES, "n", *(measure.title for measure in MEASURES)])


def to_markdown(table: Sequence[Row], caption: str) -> str:
    """The overview under its caption, how to read it, and each measure's comparisons if there are two seeds."""
    parts = [f"{caption}\n", markdown.table(overview(table), NAMES[:2]), f"{reading(table)}\n"]
    if several([row.to_baseline for row in table]):
        parts += [_comparisons([row for row in table if row.measure is measure]) for measure in MEASURES]
    return "\n".join(parts)


def reading(table: Sequence[Row]) -> str:
    """What the numbers are and what they can show, in two paragraphs."""
    measured = MEASURED.format(split=split_of(table[0].dataset))
    return f"{measured}\n\n{COMPARED if several([row.to_baseline for row in table]) else ONE_SEED}"


def _comparisons(table: Sequence[Row]) -> str:
    """One measure's comparisons with the baselines."""
    measure, epochs = table[0].measure, table[0].epochs
    compared = [row for row in table if row.to_baseline]
    title = f"**{measure.claim}: {measure.title}**, {'more' if measure.higher_is_better else 'less'} is better"
    if not any(row.sample.reached for row in table):
        return f"{title}. {f'No run got there by epoch {epochs}' if measure.of_epochs else 'A point is no curve'}.\n"
    texts = frame(compared)[[*NAMES, *cells.COMPARISON]]
    supported = [row.to_baseline.supported for row in compared if row.to_baseline]
    return f"{title}\n\n" + markdown.table(markdown.bold(texts, cells.COMPARISON[0], supported), NAMES[:2])


def to_csv(table: Sequence[Row]) -> str:
    """The whole table as CSV, one number per field; missing values are empty fields."""
    heads = ["Claim", "Measure", *NAMES, "Mean", "Standard deviation", "Median", "Reached", "n", *cells.NUMBERS]
    fields = [
        [
            *(row.measure.claim, row.measure.title, row.model, row.depth, row.layers),
            *(cells.number(each, 6) for each in (row.sample.mean, row.sample.sd, row.sample.median)),
            *(row.sample.reached, row.sample.n),
            *cells.numbers(row.to_baseline, 6),
        ]
        for row in table
    ]
    return pd.DataFrame(fields, columns=heads).to_csv(index=False, lineterminator="\n")
