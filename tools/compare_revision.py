"""Which arms are compared where both are the same, here and at another revision."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from lib import plan
from lib.card import RunCard
from lib.errors import BadInput
from lib.paper import data_name
from lib.stats.arms import Arm
from lib.words import nearest, some
from tools.compare_arms import ArmKey, Pair, Question, side_of
from tools.revision import WHAT_TO_NAME, at_revision

TO_TRAIN = ": train what has changed by `dvc repro`, and name a revision with metrics of two of its seeds"


def with_revision(revision: str, orderings: Sequence[str]) -> Question:
    """Each of these orderings, or of all, as this project has trained it, with itself as trained at a revision.

    In every network that both studies have. Arms that the change of parameters does not concern are left out, such as
    a baseline under another dropout_p. Raises BadInput.
    """
    study, place = plan.read_study(Path("params.yaml")), f"at {revision}"
    with at_revision(revision) as folder:
        before = study_at(folder, revision)
        now, then = cards_of(study), cards_of(before)
        asked = in_both(now, then, orderings, place)
        here = side_of(study.summary(), Path("metrics"), asked)
        there = side_of(before.summary(), folder / "metrics", asked, place, "name another revision")
    both = [key for key in asked if key in here.arms and key in there.arms]
    same = [key for key in both if have_same_results(here.arms[key], there.arms[key], place)]
    changes = {key: changes_of(now[key], then[key], place) for key in asked}
    changed = list(dict.fromkeys(each for key in asked for each in changes[key]))
    if both and same == both and not changed:
        raise BadInput(f"--with {revision}: parameters and results there are those of here: {WHAT_TO_NAME}")
    left = [key for key in asked if not changes[key] and (key in same or (changed and key not in both))]
    if left:
        why = "which the change does not concern" if changed else f"with the results that they have {place}"
        print(f"compare: left out, {why}: {some(['-'.join(key) for key in left])}")
    pairs = [Pair(here.arms[key], there.arms[key], f"the same {place}") for key in both if key not in left]
    for one, other, _ in pairs:
        require_same_images(one, other, place)
        if one.finished.keys() != other.finished.keys():
            print(f"compare: {one.name}: seeds {listed(one)} here, {listed(other)} {place}; those of both count")
    # Without a change of parameters those left out may be stale: the correction must not weaken as they are retrained.
    planned = len(asked) - len(left) * bool(changed)
    told = ", ".join(changed) or "no parameter; PyTorch, device or code may have"
    return Question([here, there], pairs, planned, TO_TRAIN, f"changed: {told}")


def study_at(folder: Path, revision: str) -> plan.Study:
    """The study in a folder with a revision's files. Raises BadInput, which names the revision."""
    path = folder / "params.yaml"
    try:
        return plan.read_study(path)
    except BadInput as error:
        why = str(error).removeprefix(str(path)).strip(" :")
        raise BadInput(f"{revision}:params.yaml cannot be planned here ({why}): name another revision") from None


def cards_of(study: plan.Study) -> dict[ArmKey, RunCard]:
    """A card of each arm, whatever its seed."""
    return {(card.network, card.ordering): card for card in study.cards()}


def in_both(here: Collection[ArmKey], there: Collection[ArmKey], orderings: Sequence[str], place: str) -> list[ArmKey]:
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


def changes_of(now: RunCard, then: RunCard, place: str) -> list[str]:
    """What decides an arm's results and was something else: "dropout_p 0.1 (at HEAD 0.05)"."""
    told = []
    for name in [field.name for field in dataclasses.fields(RunCard) if field.name not in ("seed", "device")]:
        value, before = ("none" if each is None else each for each in (getattr(now, name), getattr(then, name)))
        if value != before:
            whose = f"{now.network}'s " if name in ("block", "blocks_per_stage") else ""
            told.append(f"{whose}{name} {value} ({place} {before})")
    return told


def listed(arm: Arm) -> str:
    """An arm's finished seeds."""
    return ", ".join(map(str, sorted(arm.finished)))
