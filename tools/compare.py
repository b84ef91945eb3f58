"""One ordering beside another, over the seeds that both have finished: is it the dropout, or the order?

`ic_conv_relu:bn_conv_relu` is the first minus the second, of the last epoch's accuracy, in every network that the study
(plan/study.json) trains in both. The test and the interval are Table 1's, which compares with the baseline alone.
Holm's correction is for all comparisons that are asked for: ask at once for those that were fixed before the runs.
"""

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lib import cells, markdown
from lib.arms import Arm, arms_of, unequal_seeds
from lib.errors import BadInput, errors_exit
from lib.paired import Comparison, compare, corrected, several
from lib.paper import measured_on, model_name, ordering_name
from lib.results import arms_planned, read_so_far
from lib.table1 import DECIMALS, accuracy
from lib.words import counted

NAMES = ["Model", "Depth", "Ordering", "Beside"]
DIFFERENCE = ("Difference", *cells.COMPARISON[1:])
CHANCE = "No two of these orderings have two finished seeds in common, so chance cannot be judged."

Pair = tuple[str, str]  # of orderings, the first minus the second


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pairs", nargs="+", metavar="ORDERING:OTHER", help="the first minus the second")
    arguments = parser.parse_args()
    with errors_exit("compare"):
        study, runs = read_so_far("compare", Path("plan", "study.json"), Path("metrics"))
        pairs = [pair_of(text, study) for text in dict.fromkeys(arguments.pairs)]
        arms = [arm for arm in arms_of(runs) if any(arm.facts.ordering in pair for pair in pairs)]
        if unequal := unequal_seeds(arms):
            print(f"compare: {unequal}")
        print(answer(arms, pairs, planned(study, pairs)))


def pair_of(text: str, study: dict[str, Any]) -> Pair:
    """Two orderings of the study. Raises BadInput."""
    one, colon, other = text.partition(":")
    if not colon or one == other:
        raise BadInput(f"{text}: write two orderings with a colon between, as ic_conv_relu:baseline")
    orderings = list(dict.fromkeys(ordering for _, ordering in arms_planned(study)))
    for ordering in (one, other):
        if ordering not in orderings:
            nearest = "".join(f"; did you mean {each}?" for each in difflib.get_close_matches(ordering, orderings, n=1))
            raise BadInput(f"{text}: the study has no ordering {ordering!r}{nearest}; it has {', '.join(orderings)}")
    return one, other


def planned(study: dict[str, Any], pairs: Sequence[Pair]) -> int:
    """How many comparisons that makes, whether or not their runs are there yet."""
    arms = arms_planned(study)
    return sum((network, other) in arms for one, other in pairs for network, ordering in arms if ordering == one)


def answer(arms: Sequence[Arm], pairs: Sequence[Pair], of: int) -> str:
    """A table of the comparisons, and how to read it."""
    by_name = {(arm.facts.network, arm.facts.ordering): arm for arm in arms}
    sides = [
        (by_name[network, one], by_name[network, other])
        for network in dict.fromkeys(arm.facts.network for arm in arms)
        for one, other in pairs
        if (network, one) in by_name and (network, other) in by_name
    ]
    compared = corrected([compare(one.measured(accuracy), other.measured(accuracy)) for one, other in sides], of)
    if not several(compared):
        return CHANCE
    rows = [row_of(*each, comparison) for each, comparison in zip(sides, compared, strict=True)]
    table = pd.DataFrame(rows, columns=[*NAMES, *DIFFERENCE])
    table = markdown.bold(table, DIFFERENCE[0], [each is not None and each.supported for each in compared])
    measured = f"{measured_on(arms[0].facts.dataset)} accuracy"
    return (
        f"{markdown.table(table, NAMES[:2], len(NAMES))}\n"
        f"Ordering minus the one beside it, of the last epoch's {measured}, paired by\n"
        "seed: mean, 95 % t-interval, seeds in which it is better, p of the two-sided paired t-test with Holm's\n"
        f"correction for {counted(of, 'comparison')}. Bold where p < 0.05, for better or worse; a dash where the data\n"
        "cannot say."
    )


def row_of(one: Arm, other: Arm, comparison: Comparison | None) -> list[str]:
    """Who is compared, and how it came out."""
    names = [model_name(one.facts.block), str(one.facts.depth)]
    names += [ordering_name(arm.facts.ordering) for arm in (one, other)]
    return [*names, *cells.comparison(comparison, DECIMALS)]


if __name__ == "__main__":
    main()
