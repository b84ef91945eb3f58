"""Compare one ordering with another, or with itself at another revision, over the seeds that both have finished.

`ic_conv_relu:bn_conv_relu` is the first minus the second, by the last epoch's accuracy or another measure, in every
network of the study: that of params.yaml, or a kept one. `--with HEAD` compares what is here with what is there: after
`dvc exp run -S dropout_p=0.1`, what the change is worth. The interval and the test are Table 1's, which compares with
baselines only. Holm's correction covers all comparisons requested in one call: request together those that were fixed
before the runs, by one measure.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lib.errors import BadInput, errors_exit
from lib.metrics import RunMetrics
from lib.paper import model_name, ordering_name
from lib.report import cells, claims, markdown
from lib.stats.paired import LEVEL, Comparison, compare, corrected, several
from lib.table1 import DECIMALS, accuracy
from lib.words import counted
from tools.compare_arms import Pair, Question, within
from tools.compare_revision import with_revision

NAMES = ["Model", "Depth", "Ordering", "Compared with"]
DIFFERENCE = ("Difference", *cells.COMPARISON[1:])
CHANCE = "None of these pairs has two finished seeds in common, so chance cannot be judged"
HOW_TO_READ = (
    "Ordering minus the one it is compared with, of {measure}, paired by seed: mean, 95 % t-interval,\n"
    "seeds in which it is better, p of the two-sided paired t-test with Holm's correction for {comparisons}. Bold\n"
    "where p < {level:g}, for better or worse; a dash where the data cannot say."
)


class Criterion(NamedTuple):
    """A number, one per run, by which orderings are compared."""

    words: str
    of_run: Callable[[RunMetrics], float | None]  # a curve's measure is None for one epoch
    higher_is_better: bool


def training_loss(run: RunMetrics) -> float:
    """Mean cross-entropy over the last epoch's own steps, in train mode: with dropout on, where there is any."""
    return run.history[-1].train_loss


CRITERIA = {
    "accuracy": Criterion("the last epoch's accuracy", accuracy, True),
    "area": Criterion("the area under the curve of accuracy", claims.AREA, True),
    "change": Criterion("accuracy's late change from an epoch to the next (less is better)", claims.LATE_CHANGE, False),
    "training_loss": Criterion("the last epoch's training loss (less is better)", training_loss, False),
}
OF_A_CURVE = ("area", "change")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pairs",
        nargs="*",
        metavar="ORDERING:OTHER",
        help="the first minus the second; with --with, one ordering each (default: all that have changed)",
    )
    parser.add_argument(
        "--measure",
        choices=CRITERIA,
        default="accuracy",
        help="the last epoch's accuracy; area under the curve (faster?); late change from epoch to epoch (steadier?); "
        "the last epoch's loss on the training images, with dropout on (fits them sooner?)",
    )
    of = parser.add_mutually_exclusive_group()
    of.add_argument(
        "--study",
        type=Path,
        metavar="FOLDER",
        help="one that was kept, with its plan/study.json as study.json and its metrics/ (default: this project's)",
    )
    of.add_argument(
        "--with",
        dest="revision",
        metavar="REVISION",
        help="compare orderings with themselves as trained there: a commit, a branch or an experiment of DVC's",
    )
    parser.add_argument(
        "--level",
        type=float,
        default=LEVEL,
        metavar="P",
        help=f"bold where the corrected p is below this (default: {LEVEL}; {LEVEL / 2} where a plan has two measures, "
        "either of which may decide)",
    )
    arguments = parser.parse_args()
    with errors_exit("compare"):
        if not 0 < arguments.level < 1:
            raise BadInput(f"--level {arguments.level:g}: give a probability between 0 and 1, as {LEVEL / 2}")
        if arguments.revision is None and not arguments.pairs:
            raise BadInput("nothing to compare: name pairs, as ic_conv_relu:baseline, or a revision, as --with HEAD")
        if arguments.revision is None:
            question = within(arguments.study, arguments.pairs)
        else:
            question = with_revision(arguments.revision, arguments.pairs)
        if arguments.measure in OF_A_CURVE:
            require_curves(arguments.measure, [side.summary["epochs"] for side in question.sides])
        print(answer(question, CRITERIA[arguments.measure], arguments.level) or CHANCE + question.cure)


def require_curves(measure: str, epochs: Sequence[int]) -> None:
    """Raises BadInput where histories are no curves, or of unequal length, which is in the measure."""
    if min(epochs) < 2:
        raise BadInput(f"--measure {measure}: one epoch draws no curve: train two or more")
    if len(set(epochs)) > 1:
        told = " and ".join(map(str, epochs))
        raise BadInput(f"--measure {measure}: of curves of {told} epochs it is not the same: compare by accuracy")


def answer(question: Question, criterion: Criterion, level: float) -> str | None:
    """What was run, a table of the comparisons that have runs, how to read it; None where chance cannot be judged."""
    compared = [
        compare(one.measured(criterion.of_run), other.measured(criterion.of_run), criterion.higher_is_better)
        for one, other, _ in question.pairs
    ]
    results = [each for each in corrected(compared, question.planned) if each is not None]
    if not several(results):
        return None
    rows = [row_of(pair, result) for pair, result in zip(question.pairs, results, strict=True)]
    table = pd.DataFrame(rows, columns=[*NAMES, *DIFFERENCE])
    table = markdown.bold(table, DIFFERENCE[0], [each.below(level) for each in results])
    comparisons = counted(question.planned, "comparison")
    return (
        f"{question.in_lines()}\n\n{markdown.table(table, NAMES[:2], len(NAMES))}\n"
        f"{HOW_TO_READ.format(measure=criterion.words, comparisons=comparisons, level=level)}"
    )


def row_of(pair: Pair, comparison: Comparison) -> list[str]:
    """A row: the arms compared, and the result."""
    facts = pair.one.facts
    names = [model_name(facts.block), str(facts.depth), ordering_name(facts.ordering), pair.other_name]
    return [*names, *cells.comparison(comparison, DECIMALS)]


if __name__ == "__main__":
    main()
