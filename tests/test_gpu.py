"""What only a GPU can show: fused layers are near PyTorch's, and the captured step is the plain one to the bit.

So are a run beside others the run alone, and a resumed one the uninterrupted one: the last on a CPU too, so that what
these tests are made of runs where they do not. `tools/on_gpu check` runs all of it on a machine with a GPU.
"""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import turns
from lib.card import RunCard
from lib.gpu import captured, fusion
from lib.machine.stopping import Stop
from lib.metrics import EpochRecord, read_metrics
from lib.turns import in_turns
from stages.train import Shared
from stages.train import train as training_of
from tests.making import IC_CARD

GPU = torch.cuda.is_available()
ON_A_GPU = (pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="there is no GPU here"))
pytestmark = pytest.mark.usefixtures("process_as_it_was")
IMAGES = 72  # 4 batches of 16 and one of 8
CARD = dataclasses.replace(IC_CARD, device="cuda" if GPU else "cpu", train_images=IMAGES, epochs=3)
DROPS: dict[str, Any] = dict(learning_rate_rule="steps", learning_rate_steps=(1, 2), learning_rate_factor=0.1)
CARDS = [
    dataclasses.replace(
        CARD, network=block, block=block, ordering=ordering, dropout_p=None if ordering == "baseline" else 0.05
    )
    for ordering in ("baseline", "relu_ic_conv", "ic_conv_relu", "conv_relu_ic")
    for block in ("basic", "bottleneck")
]


def on_a_gpu(test: Any) -> Any:
    for mark in ON_A_GPU:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def no_restart(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A capture that fails would start this process anew, tests and all; what one test decides is not the next's."""

    def fail(error: RuntimeError) -> None:
        raise AssertionError("capturing a step failed") from error

    monkeypatch.setattr(captured, "_restart_without", fail)
    fusion.works.cache_clear()
    yield
    fusion.works.cache_clear()


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fusion.SWITCH, "0")


def train(*cards: RunCard) -> dict[str, bytes]:
    """Train cards anew, side by side; what they wrote."""
    for folder in ("checkpoints", "metrics", "models"):
        shutil.rmtree(folder, ignore_errors=True)
    return go_on(*cards)


def go_on(*cards: RunCard) -> dict[str, bytes]:
    shared = Shared(Stop(), len(cards))
    in_turns({card.name: training_of(card, [card], shared) for card in cards})
    return {str(path): path.read_bytes() for path in [*Path("metrics").iterdir(), *Path("models").iterdir()]}


def plainly(monkeypatch: pytest.MonkeyPatch, *cards: RunCard) -> dict[str, bytes]:
    """The same, and no step is captured."""
    with monkeypatch.context() as patch:
        patch.setenv(captured.SWITCH, "0")
        return train(*cards)


def history(card: RunCard) -> tuple[EpochRecord, ...]:
    return read_metrics(Path("metrics", f"{card.name}.json")).history


def losses(card: RunCard) -> list[float]:
    train(card)
    return [record.train_loss for record in history(card)]


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The outputs that are not the same in both, by name: shorter to read than megabytes of bytes."""
    return [name for name in sorted(one | other) if one.get(name) != other.get(name)]


@on_a_gpu
def test_layers_are_fused_here(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(CARD)
    assert "(layers fused)" in capsys.readouterr().out


@on_a_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_captured_step_is_the_plain_step_to_the_bit(
    precision: str, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [dataclasses.replace(card, precision=precision) for card in CARDS]
    assert not differing(train(*cards), plainly(monkeypatch, *cards))


@on_a_gpu
@pytest.mark.usefixtures("one_by_one")
def test_so_it_is_with_layers_one_by_one(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cards = [dataclasses.replace(card, precision="bfloat16") for card in CARDS[::2]]
    assert not differing(train(*cards), plainly(monkeypatch, *cards))


@on_a_gpu
@pytest.mark.parametrize("change", [{"optimizer": "sgd", "momentum": 0.9}, {"weight_decay": 0.1}], ids=str)
def test_so_it_is_with_other_recipes_and_a_rate_that_drops(
    change: dict[str, Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = dataclasses.replace(CARD, **DROPS, **change)
    assert not differing(train(card), plainly(monkeypatch, card))


@on_a_gpu
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_beside_others_is_the_run_alone(precision: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All eight at once; or three, the others as those before leave, whose memory is given back."""
    monkeypatch.setattr(turns, "AT_ONCE", {"float32": 3, "bfloat16": 8}[precision])
    cards = [dataclasses.replace(card, precision=precision) for card in CARDS]
    together = train(*cards)
    for card in (cards[0], cards[3], cards[4], cards[7]):  # each ordering, both blocks
        alone = train(card)
        assert not differing(alone, {name: together[name] for name in alone})


@pytest.mark.parametrize("capture", [True, pytest.param(False, marks=ON_A_GPU)], ids=["captured", "plain"])
def test_a_resumed_run_is_the_uninterrupted_one(
    capture: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(captured.SWITCH, str(int(capture)))
    straight = train(CARD)
    train(dataclasses.replace(CARD, epochs=1))
    assert not differing(go_on(CARD), straight)


@on_a_gpu
def test_a_gpu_learns_what_a_cpu_learns(workplace: Path) -> None:
    """With a rate that drops too. Without dropout, of which their draws differ; sums are rounded in another order."""
    for block in ("basic", "bottleneck"):
        card = dataclasses.replace(CARD, block=block, ordering="baseline", dropout_p=None, **DROPS)
        assert losses(card) == pytest.approx(losses(dataclasses.replace(card, device="cpu")), rel=2e-3)


@on_a_gpu
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 2e-3), ("bfloat16", 0.05)])
def test_fused_layers_stay_near_pytorchs_in_float32(
    precision: str, tolerance: float, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, which they draw otherwise."""
    for ordering in ("baseline", "relu_bn_conv", "conv_relu_bn"):
        card = dataclasses.replace(CARD, ordering=ordering, dropout_p=None)
        found = losses(dataclasses.replace(card, precision=precision))
        with monkeypatch.context() as patch:
            patch.setenv(fusion.SWITCH, "0")
            fusion.works.cache_clear()
            assert found == pytest.approx(losses(card), rel=tolerance)
        fusion.works.cache_clear()
