"""Which arms are compared where both are of one study."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib import plan
from lib.card import RunName
from lib.errors import BadInput
from lib.paper import ordering_name
from lib.report.circumstances import in_a_line
from lib.report.results import planned_arms, read_so_far, read_study
from lib.stats.arms import Arm, arms_of, unequal_seeds
from lib.words import nearest, some

TO_ADD = ": add it to orderings in params.yaml and train it with `dvc repro`"
TO_RESTORE = "restore the file, as by `git checkout`"

ArmKey = tuple[str, str]  # network, ordering


class Side(NamedTuple):
    """A study's summary, as plan writes it, and those of its arms that are asked for and have finished runs."""

    summary: dict[str, Any]
    arms: Mapping[ArmKey, Arm]
    place: str  # "at HEAD"; nothing for what lies here

    def in_a_line(self) -> str:
        """What was run. Needs an arm."""
        runs = [run for arm in self.arms.values() for run in arm.runs.values()]
        recipe = {key: value for run in runs for key, value in run.facts.recipe.items()}  # some have more keys
        line = in_a_line(self.summary | {"recipe": recipe}, runs)
        return f"{self.place}: {line}" if self.place else line


class Pair(NamedTuple):
    """An arm, the one it is compared with, and how a table names that one."""

    one: Arm
    other: Arm
    other_name: str


class Question(NamedTuple):
    """What is compared."""

    sides: Sequence[Side]
    pairs: Sequence[Pair]  # those with finished runs
    planned: int  # all, for the correction
    cure: str  # how to get two seeds in common
    changed: str = ""  # between the sides

    def in_lines(self) -> str:
        """What was run. Needs an arm on each side."""
        return "\n".join([*(side.in_a_line() for side in self.sides), *filter(None, [self.changed])])


def within(folder: Path | None, texts: Sequence[str]) -> Question:
    """Two orderings of a study, which is kept in a folder or (None) this project's, for each text "ONE:OTHER".

    In every network; a pair that is given twice, either way round, counts once. Raises BadInput.
    """
    summary, metrics = kept(folder) if folder else (plan.read_study(Path("params.yaml")).summary(), Path("metrics"))
    orderings = list(dict.fromkeys(ordering for _, ordering in planned_arms(summary)))
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for text in texts:
        one, _, other = text.partition(":")
        if text.count(":") != 1 or one == other:
            raise BadInput(f"{text}: write two orderings with a colon between, as ic_conv_relu:baseline")
        for ordering in (one, other):
            if ordering not in orderings:
                only = f"only {', '.join(orderings)}{'' if folder else TO_ADD}{nearest(ordering, orderings)}"
                raise BadInput(f"{text}: the study has no {ordering!r}, {only}")
        pairs.setdefault(frozenset((one, other)), (one, other))
    either = {ordering for pair in pairs.values() for ordering in pair}
    asked = [key for key in planned_arms(summary) if key[1] in either]
    side = side_of(summary, metrics, asked, cure=TO_RESTORE if folder else None)
    if unequal := unequal_seeds(list(side.arms.values())):
        print(f"compare: {unequal}" + ": train the others with `dvc repro`" * (not folder))
    keys = [((network, one), (network, other)) for network in summary["networks"] for one, other in pairs.values()]
    found = [
        Pair(side.arms[one], side.arms[other], ordering_name(other[1]))
        for one, other in keys
        if one in side.arms and other in side.arms
    ]
    return Question([side], found, len(keys), "" if folder else more_seeds(side.summary))


def kept(folder: Path) -> tuple[dict[str, Any], Path]:
    """The summary of a study that was kept, and the folder of its metrics. Raises BadInput."""
    study, metrics = folder / "study.json", folder / "metrics"
    for path in (study, metrics):
        if not path.exists():
            raise BadInput(f"{path} is not there: name a folder with a plan's study.json and its runs' metrics/")
    with cured(TO_RESTORE):
        return read_study(study), metrics


def side_of(
    summary: dict[str, Any], metrics: Path, keys: Collection[ArmKey], place: str = "", cure: str | None = None
) -> Side:
    """Read the runs of a study's arms; what is missing or was trained otherwise is named in lines.

    Raises BadInput for a damaged file, with this cure instead of retraining.
    """
    summary = summary | {"runs": [run for run in summary["runs"] if RunName.parse(run)[:2] in keys]}
    teller = f"compare: {place}" if place else "compare"
    with cured(cure):
        arms = arms_of(read_so_far(teller, summary, metrics))
    finished = {(arm.facts.network, arm.facts.ordering): arm for arm in arms if arm.finished}
    if missing := ["-".join(key) for key in planned_arms(summary) if key not in finished]:
        print(f"{teller}: without a finished run: {some(missing)}")
    return Side(summary, finished, place)


@contextlib.contextmanager
def cured(cure: str | None) -> Iterator[None]:
    """In errors about a file that no command can remake, advise this instead."""
    try:
        yield
    except BadInput as error:
        if cure is None:
            raise
        raise BadInput(f"{str(error).rpartition(': ')[0]}: {cure}") from None


def more_seeds(summary: dict[str, Any]) -> str:
    """How this project gets seeds in common."""
    seeds = len({RunName.parse(run).seed for run in summary["runs"]})
    return ": train more with `dvc repro`" if seeds > 1 else ": add seeds with `dvc exp run -S 'seeds=[0,1]'`"
