"""lib/cards.py: the cards of a plan folder, and which study they are of."""

import dataclasses
import json
from pathlib import Path

import pytest

from lib.cards import read_with_study
from lib.errors import BadInput
from tests.test_card import LEAN, written

STUDY = [dataclasses.replace(LEAN, seed=seed) for seed in (7, 2, 5)]


def write_study(folder: Path, runs: list[str]) -> None:
    (folder / "study.json").write_text(json.dumps({"runs": runs, "preset": "replication"}))


def test_a_card_without_a_study_is_alone(tmp_path):
    paths = [written(card, tmp_path) for card in STUDY]
    assert read_with_study(paths[1:2]) == [(STUDY[1], [STUDY[1]])]


def test_cards_come_with_their_study_in_its_order(tmp_path):
    paths = [written(card, tmp_path) for card in STUDY]
    write_study(tmp_path, [card.name for card in STUDY])
    with_study = [(card, STUDY) for card in STUDY]
    assert read_with_study(paths) == with_study
    assert read_with_study(paths[::-2]) == with_study[::-2]


def test_a_card_that_the_study_beside_it_does_not_name_is_alone(tmp_path):
    for card in STUDY:
        written(card, tmp_path)
    write_study(tmp_path, [card.name for card in STUDY])
    assert read_with_study([written(LEAN, tmp_path)]) == [(LEAN, [LEAN])]


def test_two_cards_of_one_run_are_refused_by_both_their_names(tmp_path):
    paths = [written(LEAN, tmp_path / folder) for folder in ("a", "b")]
    with pytest.raises(BadInput) as refusal:
        read_with_study(paths)
    assert all(str(path) in str(refusal.value) for path in paths)
    assert read_with_study([paths[0], paths[0]]) == [(LEAN, [LEAN])]  # named twice, it is one
