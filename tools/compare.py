"""Compare one ordering with another, over the seeds that both have finished; Table 1 compares with baselines only.

`ic_conv_relu:bn_conv_relu` is the first minus the second, by the last epoch's accuracy or another measure, in every
network of the study: that of params.yaml, or a kept one. The interval and the test are Table 1's. Holm's correction
covers all comparisons requested in one call: request together those that were fixed before the runs, by one measure.
"""

import argparse
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from lib import plan
from lib.card import RunName
from lib.errors import BadInput, errors_exit
from lib.metrics import RunMetrics
from lib.paper import model_name, ordering_name
from lib.report import cells, circumstances, claims, markdown
from lib.report.results import read_so_far, read_study
from lib.stats.arms import Arm, arms_of, unequal_seeds
from lib.stats.paired import LEVEL, Comparison, compare, corrected, several
from lib.table1 import DECIMALS, accuracy
from lib.words import counted, nearest, some

NAMES = ["Model", "Depth", "Ordering", "Compared with"]
DIFFERENCE = ("Difference", *cells.COMPARISON[1:])
CHANCE = "None of these pairs has two finished seeds in common, so chance cannot be judged"
TO_EQUAL = ": train the others with `dvc repro`"
TO_ADD = ": add it to orderings in params.yaml and train it with `dvc repro`"
HOW_TO_READ = (
    "Ordering minus the one it is compared with, of {measure}, paired by seed: mean, 95 % t-interval,\n"
    "seeds in which it is better, p of the two-sided paired t-test with Holm's correction for {comparisons}. Bold\n"
    "where p < {level:g}, for better or worse; a dash where the data cannot say."
)

ArmKey = tuple[str, str]  # network, ordering


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
    parser.add_argument("pairs", nargs="+", metavar="ORDERING:OTHER", help="the first minus the second")
    parser.add_argument(
        "--measure",
        choices=CRITERIA,
        default="accuracy",
        help="the last epoch's accuracy; area under the curve (faster?); late change from epoch to epoch (steadier?); "
        "the last epoch's loss on the training images, with dropout on (fits them sooner?)",
    )
    parser.add_argument(
        "--study",
        type=Path,
        metavar="FOLDER",
        help="one that was kept, with its plan/study.json as study.json and its metrics/ (default: this project's)",
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
        study, metrics = study_of(arguments.study)
        pairs = pairs_of(arguments.pairs, study, "" if arguments.study else TO_ADD)
        if study["epochs"] < 2 and arguments.measure in OF_A_CURVE:
            raise BadInput(f"--measure {arguments.measure}: one epoch draws no curve: train two or more")
        asked = list(dict.fromkeys(key for pair in pairs for key in pair))
        study["runs"] = [run for run in study["runs"] if RunName.parse(run)[:2] in asked]
        with told_to_restore(arguments.study):
            runs = read_so_far("compare", study, metrics)
        arms = {(arm.facts.network, arm.facts.ordering): arm for arm in arms_of(runs) if arm.finished}
        if missing := ["-".join(key) for key in asked if key not in arms]:
            print(f"compare: without a finished run: {some(missing)}")
        if unequal := unequal_seeds(list(arms.values())):
            print(f"compare: {unequal}" + TO_EQUAL * (not arguments.study))
        told = answer(study, arms, pairs, CRITERIA[arguments.measure], arguments.level)
        print(told or CHANCE + more_seeds(study, arguments.study))


def study_of(folder: Path | None) -> tuple[dict[str, Any], Path]:
    """The plan's summary of a study and the folder of its metrics: a kept one's or this project's. Raises BadInput."""
    if folder is None:
        return plan.read_study(Path("params.yaml")).summary(), Path("metrics")
    study, metrics = folder / "study.json", folder / "metrics"
    for path in (study, metrics):
        if not path.exists():
            raise BadInput(f"{path} is not there: name a folder with a plan's study.json and its runs' metrics/")
    with told_to_restore(folder):
        return read_study(study), metrics


@contextlib.contextmanager
def told_to_restore(folder: Path | None) -> Iterator[None]:
    """In errors about a kept study's file, which no command can remake, advise restoring it instead."""
    try:
        yield
    except BadInput as error:
        if folder is None:
            raise
        raise BadInput(f"{str(error).rpartition(': ')[0]}: restore the file, as by `git checkout`") from None


def more_seeds(study: dict[str, Any], folder: Path | None) -> str:
    """How to get seeds in common; empty for a kept study."""
    if folder:
        return ""
    seeds = len({RunName.parse(run).seed for run in study["runs"]})
    return ": train more with `dvc repro`" if seeds > 1 else ": add seeds with `dvc exp run -S 'seeds=[0,1]'`"


def pairs_of(texts: Sequence[str], study: dict[str, Any], cure: str) -> list[tuple[ArmKey, ArmKey]]:
    """The arms to compare, network by network; a pair given twice, either way round, counts once.

    Raises BadInput for anything but a pair of the study's orderings; `cure` says how to add one.
    """
    orderings = list(dict.fromkeys(RunName.parse(run).ordering for run in study["runs"]))
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for text in texts:
        one, _, other = text.partition(":")
        if text.count(":") != 1 or one == other:
            raise BadInput(f"{text}: write two orderings with a colon between, as ic_conv_relu:baseline")
        for ordering in (one, other):
            if ordering not in orderings:
                raise BadInput(
                    f"{text}: the study has no {ordering!r}, only {', '.join(orderings)}"
                    f"{cure}{nearest(ordering, orderings)}"
                )
        pairs.setdefault(frozenset((one, other)), (one, other))
    return [((network, one), (network, other)) for network in study["networks"] for one, other in pairs.values()]


def answer(
    study: dict[str, Any],
    arms: Mapping[ArmKey, Arm],
    pairs: Sequence[tuple[ArmKey, ArmKey]],
    criterion: Criterion,
    level: float,
) -> str | None:
    """What was run, a table of the comparisons that have runs, and how to read it; None where chance cannot be judged.

    `study` names the runs of `pairs` only.
    """
    there = [(arms[one], arms[other]) for one, other in pairs if one in arms and other in arms]
    compared = [
        compare(one.measured(criterion.of_run), other.measured(criterion.of_run), criterion.higher_is_better)
        for one, other in there
    ]
    results = [each for each in corrected(compared, len(pairs)) if each is not None]
    if not several(results):
        return None
    rows = [row_of(*sides, comparison) for sides, comparison in zip(there, results, strict=True)]
    table = pd.DataFrame(rows, columns=[*NAMES, *DIFFERENCE])
    table = markdown.bold(table, DIFFERENCE[0], [each.below(level) for each in results])
    runs = [run for arm in arms.values() for run in arm.runs.values()]
    recipe = {key: value for run in runs for key, value in run.facts.recipe.items()}  # some orderings have more keys
    caption = circumstances.in_a_line(study | {"recipe": recipe}, runs)
    return (
        f"{caption}\n\n{markdown.table(table, NAMES[:2], len(NAMES))}\n"
        f"{HOW_TO_READ.format(measure=criterion.words, comparisons=counted(len(pairs), 'comparison'), level=level)}"
    )


def row_of(one: Arm, other: Arm, comparison: Comparison) -> list[str]:
    """A row: the arms compared, and the result."""
    names = [model_name(one.facts.block), str(one.facts.depth)]
    names += [ordering_name(arm.facts.ordering) for arm in (one, other)]
    return [*names, *cells.comparison(comparison, DECIMALS)]


if __name__ == "__main__":
    main()
