"""Which arms are compared where both are the same, here and at another revision."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import plan
from lib.errors import BadInput
from lib.paper import data_name
from lib.stats.arms import Arm
from lib.words import nearest, some
from tools.compare_arms import ArmKey, Pair, Question, keys_of, side_of
from tools.revision import WHAT_TO_NAME, at_revision

TO_COMMIT = ": commit the metrics of two seeds that are trained here too, or name the experiment that has them"


def with_revision(revision: str, orderings: Sequence[str]) -> Question:
    """Each of these orderings, or of all, as this project has trained it, with itself as trained at a revision.

    In every network that both studies have. What a change of parameters leaves as it was, such as a baseline under
    another dropout_p, is left out, by its parameters and not by its results alone. Raises BadInput.
    """
    summary, place = plan.read_study(Path("params.yaml")).summary(), f"at {revision}"
    with at_revision(revision) as folder:
        before = summary_at(folder, revision)
        asked = in_both(keys_of(summary), keys_of(before), orderings, place)
        here = side_of(summary, Path("metrics"), asked)
        there = side_of(before, folder / "metrics", asked, place, "name another revision")
    both = [key for key in asked if key in here.arms and key in there.arms]
    changes = {key: changes_of(here.arms[key], there.arms[key], place) for key in both}
    same = [key for key in both if have_same_results(here.arms[key], there.arms[key], place)]
    if both and same == both and not any(changes.values()):
        raise BadInput(f"--with {revision}: the results there are those of here: {WHAT_TO_NAME}")
    unaffected = [key for key in same if not changes[key] and any(changes.values())]
    if unaffected:
        print(f"compare: left out, unchanged since {revision}: {some(['-'.join(key) for key in unaffected])}")
    pairs = [Pair(here.arms[key], there.arms[key], f"the same {place}") for key in both if key not in unaffected]
    for one, other, _ in pairs:
        require_same_images(one, other, place)
        if one.finished.keys() != other.finished.keys():
            print(f"compare: {one.name}: seeds {listed(one)} here, {listed(other)} {place}; those of both count")
    changed = list(dict.fromkeys(each for key in both for each in changes[key]))
    told = ", ".join(changed) or "no parameter; PyTorch, device or code may have"
    return Question([here, there], pairs, len(asked) - len(unaffected), TO_COMMIT, f"changed: {told}")


def summary_at(folder: Path, revision: str) -> dict[str, Any]:
    """The summary of the study in a folder with a revision's files. Raises BadInput, which names the revision."""
    path = folder / "params.yaml"
    try:
        return plan.read_study(path).summary()
    except BadInput as error:
        why = str(error).removeprefix(f"{path}").strip(" :")
        raise BadInput(f"{revision}:params.yaml cannot be planned here ({why}): name another revision") from None


def in_both(here: Sequence[ArmKey], there: Sequence[ArmKey], orderings: Sequence[str], place: str) -> list[ArmKey]:
    """The arms of both studies, in these orderings or in all. Raises BadInput if there are none."""
    common = [key for key in here if key in there]
    known = list(dict.fromkeys(ordering for _, ordering in common))
    if not common:
        raise BadInput(f"no network is planned in the same ordering here and {place}: {WHAT_TO_NAME}")
    for ordering in orderings:
        if ":" in ordering:
            raise BadInput(f"{ordering}: it is compared with itself {place}: name one ordering, as conv_relu_ic")
        if ordering not in known:
            only = f"only {', '.join(known)}{nearest(ordering, known)}"
            raise BadInput(f"{ordering}: it is not planned both here and {place}, {only}")
    return [key for key in common if key[1] in (orderings or known)]


def require_same_images(one: Arm, other: Arm, place: str) -> None:
    """Raises BadInput if two arms were not tested on the same images."""
    here, there = (f"{arm.facts.test_images:,} images of {data_name(arm.facts.dataset)}" for arm in (one, other))
    if here != there:
        raise BadInput(f"{one.name} was tested on {there} {place}, on {here} here: {WHAT_TO_NAME}")


def have_same_results(one: Arm, other: Arm, place: str) -> bool:
    """Whether the seeds that both have finished gave the same histories, to the last digit; no seed is no result.

    Raises BadInput if only some did: those would pass for pairs without a difference.
    """
    shared = one.finished.keys() & other.finished.keys()
    same = sorted(seed for seed in shared if one.finished[seed].history == other.finished[seed].history)
    if same and len(same) < len(shared):
        raise BadInput(
            f"{one.name}: seed {same[0]} has the results that it has {place}, other seeds have not: "
            "train what is stale with `dvc repro`"
        )
    return bool(same)


def changes_of(one: Arm, other: Arm, place: str) -> list[str]:
    """The parameters that decide an arm's results and are not the same for another: "dropout_p 0.1 (at HEAD 0.05)"."""
    now, then = (
        {key: getattr(arm.facts, key) for key in ("block", "depth", "train_images", "epochs")} | arm.facts.recipe
        for arm in (one, other)
    )
    return [
        f"{key} {now.get(key, 'none')} ({place} {then.get(key, 'none')})"
        for key in now | then
        if now.get(key) != then.get(key)
    ]


def listed(arm: Arm) -> str:
    """An arm's finished seeds."""
    return ", ".join(map(str, sorted(arm.finished)))
