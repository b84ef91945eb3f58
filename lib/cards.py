"""The run cards of a plan folder. Standard library only."""

from collections.abc import Sequence
from pathlib import Path

from lib.card import CURE, RunCard
from lib.errors import BadInput
from lib.files import read_json


def run_names(folder: Path) -> list[str]:
    """The names of the study's runs in a plan folder, in Table 1's order. Raises BadInput that names the file."""
    path = folder / "study.json"
    try:
        return [str(run) for run in read_json(path, CURE)["runs"]]
    except (LookupError, TypeError):
        raise BadInput(f"{path} is damaged: {CURE}") from None


def read_cards(folder: Path) -> list[RunCard]:
    """The cards of the study in a plan folder, in Table 1's order. Raises BadInput that names the file."""
    return [RunCard.read(folder / f"{run}.json") for run in run_names(folder)]


def read_with_study(paths: Sequence[Path]) -> list[tuple[RunCard, list[RunCard]]]:
    """Each card with all cards of its study, or with itself alone if no valid study beside it contains it.

    The study serves only to show progress: a result depends on its own card and nothing else.
    Raises BadInput that names an invalid card, or two cards of one run.
    """
    cards = {path: RunCard.read(path) for path in paths}
    by_name = {card.name: path for path, card in cards.items()}
    for path, card in cards.items():
        if (other := by_name[card.name]) != path:
            raise BadInput(f"{path} and {other} are both cards of {card.name}: train them by a command each")
    studies = {folder: _cards_of_study(folder) for folder in {path.parent for path in cards}}
    return [(card, studies[path.parent] if card in studies[path.parent] else [card]) for path, card in cards.items()]


def _cards_of_study(folder: Path) -> list[RunCard]:
    """The study's cards, or none if it is invalid."""
    try:
        return read_cards(folder)
    except BadInput:
        return []
