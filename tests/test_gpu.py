"""What only a GPU can show: the recorded step is the plain one, and a run beside others is the run alone.

Run by `pytest -m gpu` on a machine with one; each run is a process, as a user starts it.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lib.card import RunCard
from lib.metrics import EpochRecord, read_metrics
from lib.recorded import SWITCH
from tests.making import IC_CARD

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here"),
]
ROOT = Path(__file__).parents[1]
CARD = dataclasses.replace(IC_CARD, device="cuda", train_images=72, epochs=3)  # 4 batches of 16 and one of 8
CARDS = [
    dataclasses.replace(
        CARD, network=block, block=block, ordering=ordering, dropout_p=None if ordering == "baseline" else 0.05
    )
    for ordering in ("baseline", "relu_ic_conv", "ic_conv_relu", "conv_relu_ic")
    for block in ("basic", "bottleneck")
]


def train(*cards: RunCard, record: bool = True) -> dict[str, bytes]:
    """Train cards anew, side by side; what they wrote."""
    for folder in ("checkpoints", "metrics", "models"):
        shutil.rmtree(folder, ignore_errors=True)
    return go_on(*cards, record=record)


def go_on(*cards: RunCard, record: bool = True) -> dict[str, bytes]:
    paths = [Path("plan", f"{card.name}.json") for card in cards]
    for card, path in zip(cards, paths, strict=True):
        card.write(path)
    environment = os.environ | {"PYTHONPATH": str(ROOT), SWITCH: str(int(record))}
    command = [sys.executable, "-m", "stages.train", *map(str, paths)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "recording a step failed" not in result.stderr
    return {str(path): path.read_bytes() for path in [*Path("metrics").iterdir(), *Path("models").iterdir()]}


def history(card: RunCard) -> tuple[EpochRecord, ...]:
    return read_metrics(Path("metrics", f"{card.name}.json")).history


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The outputs that are not the same in both, by name: shorter to read than megabytes of bytes."""
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_recorded_step_is_the_plain_step_to_the_bit(precision: str, compiled: bool, workplace: Path) -> None:
    cards = [dataclasses.replace(card, precision=precision, compile_blocks=compiled) for card in CARDS]
    assert not differing(train(*cards), train(*cards, record=False))


@pytest.mark.parametrize("change", [{"optimizer": "sgd", "momentum": 0.9}, {"weight_decay": 0.1}], ids=str)
def test_so_it_is_with_other_recipes_and_a_rate_that_drops(change: dict[str, object], workplace: Path) -> None:
    rate = {"learning_rate_rule": "steps", "learning_rate_steps": (1, 2), "learning_rate_factor": 0.1}
    card = dataclasses.replace(CARD, **rate, **change)
    assert not differing(train(card), train(card, record=False))


@pytest.mark.parametrize("compiled", [False, True], ids=["as it is", "compiled"])
def test_a_run_beside_others_is_the_run_alone(compiled: bool, workplace: Path) -> None:
    cards = [dataclasses.replace(card, compile_blocks=compiled) for card in CARDS]
    together = train(*cards)
    for card in (cards[0], cards[3], cards[4], cards[7]):  # each ordering, both blocks; every process starts anew
        alone = train(card)
        assert not differing(alone, {name: together[name] for name in alone})


@pytest.mark.parametrize(
    ("record", "compiled"), [(True, False), (False, False), (True, True)], ids=["recorded", "plain", "compiled"]
)
def test_a_resumed_run_is_the_uninterrupted_one(record: bool, compiled: bool, workplace: Path) -> None:
    card = dataclasses.replace(CARD, compile_blocks=compiled)
    straight = train(card, record=record)
    train(dataclasses.replace(card, epochs=1), record=record)
    assert not differing(go_on(card, record=record), straight)


def test_a_gpu_learns_what_a_cpu_learns(workplace: Path) -> None:
    """Their dropout draws differ, so without it; sums are rounded in another order."""
    card = dataclasses.replace(CARD, ordering="baseline", dropout_p=None)
    train(card)
    there = history(card)
    train(dataclasses.replace(card, device="cpu"))
    for one, other in zip(there, history(card), strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=2e-3)


@pytest.mark.parametrize(
    ("change", "tolerance"), [({"precision": "bfloat16"}, 0.05), ({"compile_blocks": True}, 2e-3)], ids=str
)
def test_the_quick_paths_stay_near_plain_float32(change: dict[str, Any], tolerance: float, workplace: Path) -> None:
    """Without dropout, which compiled blocks draw otherwise."""
    losses = []
    for changes in ({}, change):
        card = dataclasses.replace(CARD, ordering="baseline", dropout_p=None, **changes)
        train(card)
        losses.append([record.train_loss for record in history(card)])
    assert losses[1] == pytest.approx(losses[0], rel=tolerance)
