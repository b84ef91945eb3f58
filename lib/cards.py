"""The run cards of a plan folder. Standard library only."""

from collections.abc import Sequence
from pathlib import Path

from lib.card import CURE, RunCard
from lib.errors import BadInput
from lib.files import read_json


def read_cards(folder: Path) -> list[RunCard]:
    """The cards of the study in a plan folder, in Table 1's order. Raises BadInput that names the file."""
    path = folder / "study.json"
    try:
        runs = [str(run) for run in read_json(path, CURE)["runs"]]
    except (LookupError, TypeError):
        raise BadInput(f"{path} is damaged: {CURE}") from None
    return [RunCard.read(folder / f"{run}.json") for run in runs]


def read_with_study(paths: Sequence[Path]) -> list[tuple[RunCard, list[RunCard]]]:
    """Each card with all cards of its study; with itself alone where no sound study lies beside it.

    The study is for showing progress only: a result depends on its own card and on nothing else.
    Raises BadInput that names a card that is not sound, or two of one run.
    """
    cards = {path: RunCard.read(path) for path in paths}
    by_name = {card.name: path for path, card in cards.items()}
    for path, card in cards.items():
        if (other := by_name[card.name]) != path:
            raise BadInput(f"{path} and {other} are both cards of {card.name}: train them by a command each")
    studies = {folder: _cards_of_study(folder) for folder in {path.parent for path in cards}}
    return [(card, studies[path.parent] if card in studies[path.parent] else [card]) for path, card in cards.items()]


def _cards_of_study(folder: Path) -> list[RunCard]:
    """The study's cards, or none where it is not sound."""
    try:
        return read_cards(folder)
    except BadInput:
        return []
