"""Which arms are compared: two orderings of one study, or an ordering with itself at another revision."""

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lib import plan
from lib.card import RunName
from lib.errors import BadInput
from lib.paper import data_name, ordering_name
from lib.report.circumstances import in_a_line
from lib.report.results import read_so_far, read_study
from lib.stats.arms import Arm, arms_of, unequal_seeds
from lib.words import nearest, some
from tools.revision import at_revision

TO_ADD = ": add it to orderings in params.yaml and train it with `dvc repro`"
TO_RESTORE = "restore the file, as by `git checkout`"

ArmKey = tuple[str, str]  # network, ordering


class Side(NamedTuple):
    """A study's summary, as plan writes it, and those of its arms that are asked for and have finished runs."""

    summary: dict[str, Any]
    arms: Mapping[ArmKey, Arm]
    place: str = ""  # "at HEAD"; nothing for what lies here

    def in_a_line(self) -> str:
        """What was run. Needs an arm."""
        runs = [run for arm in self.arms.values() for run in arm.runs.values()]
        recipe = {key: value for run in runs for key, value in run.facts.recipe.items()}  # some have more keys
        line = in_a_line(self.summary | {"recipe": recipe}, runs)
        return f"{self.place}: {line}" if self.place else line


class Pair(NamedTuple):
    """An arm, the one it is compared with, and how a table names that. None for one without a finished run."""

    one: Arm | None
    other: Arm | None
    other_name: str


class Question(NamedTuple):
    """What is compared, and how to get seeds in common where there are none."""

    sides: Sequence[Side]
    pairs: Sequence[Pair]
    cure: str
    changed: str = ""  # between the sides

    def in_lines(self) -> str:
        """What was run. Needs an arm on each side."""
        return "\n".join([*(side.in_a_line() for side in self.sides), *filter(None, [self.changed])])


def within(folder: Path | None, texts: Sequence[str]) -> Question:
    """Two orderings of a study, which is kept in a folder or (None) this project's, for each text "ONE:OTHER".

    In every network; a pair that is given twice, either way round, counts once. Raises BadInput.
    """
    summary, metrics = kept(folder) if folder else (plan.read_study(Path("params.yaml")).summary(), Path("metrics"))
    orderings = list(dict.fromkeys(ordering for _, ordering in keys_of(summary)))
    pairs: dict[frozenset[str], tuple[str, str]] = {}
    for text in texts:
        one, _, other = text.partition(":")
        if text.count(":") != 1 or one == other:
            raise BadInput(f"{text}: write two orderings with a colon between, as ic_conv_relu:baseline")
        for ordering in (one, other):
            require_known(text, ordering, orderings, "the study", "" if folder else TO_ADD)
        pairs.setdefault(frozenset((one, other)), (one, other))
    orders = {ordering for pair in pairs.values() for ordering in pair}
    asked = [key for key in keys_of(summary) if key[1] in orders]
    side = side_of(summary, metrics, asked, "compare", TO_RESTORE if folder else None)
    if unequal := unequal_seeds(list(side.arms.values())):
        print(f"compare: {unequal}" + ": train the others with `dvc repro`" * (not folder))
    found = [
        Pair(side.arms.get((network, one)), side.arms.get((network, other)), ordering_name(other))
        for network in summary["networks"]
        for one, other in pairs.values()
    ]
    return Question([side], found, "" if folder else more_seeds(side.summary))


def with_revision(revision: str, orderings: Sequence[str]) -> Question:
    """Each of these orderings, or of all, as this project has trained it, with itself as trained at a revision.

    In every network that both studies have. Arms whose results are the same in both are left out: there is no doubt
    about them, and nothing to correct for. Raises BadInput.
    """
    summary, place = plan.read_study(Path("params.yaml")).summary(), f"at {revision}"
    with at_revision(revision) as folder:
        before = plan.read_study(folder / "params.yaml").summary()
        common = [key for key in keys_of(summary) if key in keys_of(before)]
        known = list(dict.fromkeys(ordering for _, ordering in common))
        for ordering in orderings:
            if ":" in ordering:
                raise BadInput(f"{ordering}: it is compared with itself {place}: name one ordering, as conv_relu_ic")
            require_known(ordering, ordering, known, f"what was planned both here and {place}")
        asked = [key for key in common if key[1] in (orderings or known)]
        here = side_of(summary, Path("metrics"), asked, "compare", None)
        there = side_of(before, folder / "metrics", asked, f"compare: {place}", "name another revision")
    there = there._replace(place=place)
    require_same_images(here, there)
    if same := [key for key in asked if have_same_results(here.arms.get(key), there.arms.get(key))]:
        print(f"compare: left out, with the same results here and {place}: {some(['-'.join(key) for key in same])}")
    pairs = [Pair(here.arms.get(key), there.arms.get(key), f"the same {place}") for key in asked if key not in same]
    if not pairs:
        raise BadInput(f"--with {revision}: the results there are those of here: name another revision")
    changed = f"changed: {differences(summary, before, place)}"
    return Question([here, there], pairs, f": train the same seeds here and {place}", changed)


def kept(folder: Path) -> tuple[dict[str, Any], Path]:
    """The summary of a study that was kept, and the folder of its metrics. Raises BadInput."""
    study, metrics = folder / "study.json", folder / "metrics"
    for path in (study, metrics):
        if not path.exists():
            raise BadInput(f"{path} is not there: name a folder with a plan's study.json and its runs' metrics/")
    with cured(TO_RESTORE):
        return read_study(study), metrics


def keys_of(summary: dict[str, Any]) -> list[ArmKey]:
    """A study's arms."""
    return list(dict.fromkeys(RunName.parse(run)[:2] for run in summary["runs"]))


def require_known(text: str, ordering: str, known: Sequence[str], where: str, cure: str = "") -> None:
    """Raises BadInput for an ordering that is not one of these."""
    if ordering not in known:
        raise BadInput(f"{text}: {where} has no {ordering!r}, only {', '.join(known)}{cure}{nearest(ordering, known)}")


def side_of(summary: dict[str, Any], metrics: Path, keys: Collection[ArmKey], teller: str, cure: str | None) -> Side:
    """Read the runs of a study's arms; what is missing or was trained otherwise is named in lines.

    Raises BadInput for a damaged file, with this cure instead of retraining.
    """
    runs = [run for run in summary["runs"] if RunName.parse(run)[:2] in keys]
    summary = summary | {"runs": runs}
    with cured(cure):
        arms = arms_of(read_so_far(teller, summary, metrics))
    finished = {(arm.facts.network, arm.facts.ordering): arm for arm in arms if arm.finished}
    if missing := ["-".join(key) for key in keys_of(summary) if key not in finished]:
        print(f"{teller}: without a finished run: {some(missing)}")
    return Side(summary, finished)


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


def require_same_images(here: Side, there: Side) -> None:
    """Raises BadInput if the two were not tested on the same images."""
    tested = [
        f"{arm.facts.test_images:,} images of {data_name(arm.facts.dataset)}"
        for side in (here, there)
        for arm in list(side.arms.values())[:1]
    ]
    if len(set(tested)) > 1:
        raise BadInput(
            f"{there.place} runs were tested on {tested[1]}, here on {tested[0]}: name a revision with the same images"
        )


def have_same_results(one: Arm | None, other: Arm | None) -> bool:
    """Whether all seeds that both have finished give the same history, to the last digit."""
    if one is None or other is None:
        return False
    shared = one.finished.keys() & other.finished.keys()
    return bool(shared) and all(one.finished[seed].history == other.finished[seed].history for seed in shared)


def differences(here: dict[str, Any], there: dict[str, Any], place: str) -> str:
    """What params.yaml says otherwise there, by key."""
    now, then = parameters_of(here), parameters_of(there)
    told = [
        f"{key} {now.get(key, 'none')} ({place} {then.get(key, 'none')})"
        for key in now | then
        if now.get(key) != then.get(key)
    ]
    return ", ".join(told) or "none of the parameters; code, PyTorch or device may be others"


def parameters_of(summary: dict[str, Any]) -> dict[str, Any]:
    """What decides the results of runs that have the same name in two studies."""
    networks = {
        f"{name}'s {key}": value for name, network in summary["networks"].items() for key, value in network.items()
    }
    return {key: summary[key] for key in ("dataset", "train_images", "epochs")} | networks | summary["recipe"]
