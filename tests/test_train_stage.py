"""stages/train.py, run as the command runs it, on a small stand-in and a card of the smallest network."""

import dataclasses
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import checkpoint, cifar10, lock
from lib.batches import Batches, channel_statistics
from lib.card import VALIDATION, RunCard
from lib.checkpoint import Checkpoints, Snapshot
from lib.errors import BadInput
from lib.machine.stopping import ENDS_WITH_PARENT, Stop, Stopped
from lib.metrics import read_metrics
from lib.resnet import ResNet
from lib.turns import in_turns
from stages import train
from tests.making import CARD, IC_CARD

pytestmark = pytest.mark.usefixtures("process_as_it_was")


def run(*cards: RunCard | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """python -m stages.train <cards>"""
    paths = [card if isinstance(card, Path) else Path("plan", f"{card.name}.json") for card in cards]
    for card, path in zip(cards, paths, strict=True):
        if isinstance(card, RunCard):
            card.write(path)
    monkeypatch.setattr(sys, "argv", ["train", *map(str, paths)])
    train.main()


def written(workplace: Path) -> dict[str, bytes]:
    """Everything a run has written."""
    paths = [path for folder in ("metrics", "models") for path in (workplace / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(workplace)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("card", [CARD, IC_CARD], ids=lambda card: card.ordering)
def test_a_run_writes_its_metrics_and_its_model_and_nothing_else(
    card: RunCard, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(card, monkeypatch=monkeypatch)
    assert set(written(workplace)) == {f"metrics/{card.name}.json", f"models/{card.name}.pt"}
    assert {path.name for path in workplace.iterdir()} == {"checkpoints", "data", "plan", "metrics", "models"}
    metrics = read_metrics(Path("metrics", f"{card.name}.json"))
    assert metrics.finished
    assert len(metrics.history) == 2
    assert [record.learning_rate for record in metrics.history] == [0.001, 0.001]
    for record in metrics.history:
        assert record.train_accuracy * 64 == round(record.train_accuracy * 64)  # of 64 and of 40 images
        assert record.test_accuracy * 40 == pytest.approx(round(record.test_accuracy * 40), abs=1e-9)
    first, *epochs = capsys.readouterr().out.splitlines()
    assert "trained by PyTorch" in first and "thread" in first  # where bits depend on
    assert len(epochs) == 2 and all(card.name in line for line in epochs)  # a line an epoch


def test_a_training_computes_what_it_computed_when_this_was_written(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other tests compare the code with itself; a loss that is off by a little would pass them all.

    By SGD, since Adam's first steps go as far for a gradient of rounding errors as for any other, and for four steps:
    after eight a CPU that rounds otherwise may be off by as much.
    """
    card = dataclasses.replace(IC_CARD, optimizer="sgd", momentum=0.9, learning_rate=0.01, epochs=1)
    run(card, monkeypatch=monkeypatch)
    (record,) = read_metrics(Path("metrics", f"{card.name}.json")).history
    assert (record.train_loss, record.test_loss) == pytest.approx((2.529452, 2.899964), rel=5e-4)


def test_every_step_of_every_epoch_and_seed_has_dropout_of_its_own(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded: list[int] = []
    manual_seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda seed: seeded.append(seed) or manual_seed(seed))
    for seed in (3, 4):
        run(dataclasses.replace(IC_CARD, seed=seed), monkeypatch=monkeypatch)
    steps = 2 * 4  # epochs of 64 images by 16
    assert len(set(seeded)) == 2 * (steps + 1)  # and the initial weights


def test_training_is_deterministic_and_float32_is_float32(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    run(CARD, monkeypatch=monkeypatch)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory
    assert not torch.backends.cudnn.benchmark
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_cpu_that_bfloat16_makes_slow_is_told_of(
    there: bool, precision: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train, "convolves_in_bfloat16", lambda device: there)
    run(dataclasses.replace(CARD, precision=precision, epochs=1), monkeypatch=monkeypatch)
    told = train.SLOW_IN_BFLOAT16 in capsys.readouterr().out
    assert told == (precision == "bfloat16" and not there)


def test_on_a_cpu_it_is_said_first_how_long_the_rest_would_take(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(train.training, "seconds_per_step", lambda *_: 1800.0)
    run(dataclasses.replace(CARD, epochs=1), monkeypatch=monkeypatch)
    assert "On this CPU an epoch takes 2.0 h: about 2.0 h for this run" in capsys.readouterr().out  # 4 steps
    run(dataclasses.replace(CARD, epochs=4), monkeypatch=monkeypatch)
    assert "an epoch takes 2.0 h: about 6.0 h for this run" in capsys.readouterr().out


@pytest.mark.parametrize(("devices", "hidden"), [(("cpu", "cpu"), True), (("cpu", "auto"), False)])
def test_a_process_whose_runs_shall_use_no_gpu_sees_none(
    devices: tuple[str, str], hidden: bool, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = [dataclasses.replace(card, device=device) for card, device in zip((CARD, IC_CARD), devices, strict=True)]
    monkeypatch.setattr(train, "in_turns", lambda runs: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    run(*cards, monkeypatch=monkeypatch)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ("" if hidden else "0")


@pytest.mark.parametrize("optimizer", [{"optimizer": "adam"}, {"optimizer": "sgd", "momentum": 0.9}], ids=str)
def test_a_checkpoint_and_the_weights_are_no_larger_than_the_room_that_is_asked_for(
    optimizer: dict[str, Any], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network that is large beside what a file has besides its numbers."""
    card = dataclasses.replace(CARD, blocks_per_stage=9, train_images=16, test_images=8, epochs=1, **optimizer)
    run(card, monkeypatch=monkeypatch)
    weights, saved = train.bytes_of(train.model_of(card))
    (path,) = Path("checkpoints").glob("*/epoch-0001.ckpt")
    assert 0.3 * saved < path.stat().st_size <= saved
    assert 0.8 * weights < Path("models", f"{card.name}.pt").stat().st_size <= weights


def test_a_run_on_the_validation_set_says_so(official: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(workplace / "data/cifar10")
    official.rename(workplace / "data/cifar10")
    tested, validated = (
        dataclasses.replace(CARD, dataset=each, seed=at) for at, each in enumerate(("cifar10", VALIDATION))
    )
    run(tested, validated, monkeypatch=monkeypatch)
    facts = {card.dataset: read_metrics(Path("metrics", f"{card.name}.json")).facts for card in (tested, validated)}
    assert {name: each.dataset for name, each in facts.items()} == {name: name for name in ("cifar10", VALIDATION)}
    assert facts[VALIDATION].as_planned(validated)
    assert not facts[VALIDATION].as_planned(dataclasses.replace(validated, dataset="cifar10"))


@pytest.mark.parametrize("block, depth", [("basic", 8), ("bottleneck", 11)])
def test_the_facts_are_what_was_and_not_what_was_asked_for(
    block: str, depth: int, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = dataclasses.replace(IC_CARD, block=block, epochs=1)
    run(card, monkeypatch=monkeypatch)
    facts = read_metrics(Path("metrics", f"{card.name}.json")).facts
    model = ResNet(block, 1, "conv_relu_ic", dropout_p=0.05)
    assert dataclasses.asdict(facts) == {
        "network": "tiny",
        "block": block,
        "depth": depth,
        "ordering": "conv_relu_ic",
        "seed": 3,
        "dataset": "synthetic",
        "train_images": CARD.train_images,
        "test_images": CARD.test_images,
        "epochs": 1,
        "recipe": IC_CARD.recipe,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch": torch.__version__,
        "device": "cpu",
    }


def test_the_model_file_gives_back_the_net_of_the_last_record(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(IC_CARD, monkeypatch=monkeypatch)
    model = ResNet("basic", 1, "conv_relu_ic", dropout_p=0.05)
    model.load_state_dict(torch.load(Path("models", f"{IC_CARD.name}.pt"), weights_only=True))
    data = cifar10.load(Path("data/cifar10"), "synthetic", 64, 40)
    test_set = Batches(data.test, channel_statistics(data.train.images), 16, torch.device("cpu"))
    tally = train.training.evaluate(model, test_set.in_order(), "float32", torch.device("cpu"))
    last = read_metrics(Path("metrics", f"{IC_CARD.name}.json")).history[-1]
    assert tally.accuracy() == pytest.approx(last.test_accuracy, abs=1 / 40)
    assert tally.mean_loss() == pytest.approx(last.test_loss, rel=1e-4)


@pytest.mark.parametrize("card", [CARD, IC_CARD], ids=lambda card: card.ordering)
def test_running_twice_gives_the_same_bytes(card: RunCard, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(card, monkeypatch=monkeypatch)
    first = written(workplace)
    torch.manual_seed(12345)  # whatever the process did before
    shutil.rmtree("checkpoints")
    run(card, monkeypatch=monkeypatch)
    assert written(workplace) == first


def test_another_seed_gives_another_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = dataclasses.replace(CARD, seed=4)
    run(CARD, monkeypatch=monkeypatch)
    run(other, monkeypatch=monkeypatch)
    one, two = (read_metrics(Path("metrics", f"{card.name}.json")).history for card in (CARD, other))
    assert all(first != second for first, second in zip(one, two, strict=True))


def test_all_runs_of_a_seed_see_the_same_images_in_the_same_order_and_other_seeds_others(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    step = train.training.train_step

    def noting(model: Any, optimizer: Any, batch: Any, *rest: Any) -> None:
        seen.append(batch[0].clone())
        step(model, optimizer, batch, *rest)

    runs = []
    for card in (CARD, IC_CARD, dataclasses.replace(CARD, seed=4)):
        monkeypatch.setattr(train.training, "seconds_per_step", lambda *_: 0.0)
        monkeypatch.setattr(train.training, "train_step", noting)
        run(card, monkeypatch=monkeypatch)
        runs.append(torch.cat(seen))
        seen.clear()
    baseline, ic, other_seed = runs
    assert len(baseline) == 2 * 64
    assert torch.equal(baseline, ic)
    assert not torch.equal(baseline, other_seed)
    assert not torch.equal(baseline[:64], baseline[64:])  # every epoch its own


def test_all_networks_of_a_seed_and_ordering_start_from_the_same_random_state(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = []
    make = train.ResNet

    def noting(*arguments: Any, **options: Any) -> ResNet:
        states.append(torch.get_rng_state())
        return make(*arguments, **options)

    monkeypatch.setattr(train, "ResNet", noting)
    for card in (CARD, IC_CARD, dataclasses.replace(CARD, seed=4)):
        run(dataclasses.replace(card, epochs=1, train_images=16, test_images=1), monkeypatch=monkeypatch)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_the_rest_of_the_study_does_not_change_a_run(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(CARD, monkeypatch=monkeypatch)
    alone = written(workplace)
    IC_CARD.write(Path("plan", f"{IC_CARD.name}.json"))
    Path("plan", "study.json").write_text(json.dumps({"runs": [IC_CARD.name, CARD.name]}))
    shutil.rmtree("checkpoints")
    run(CARD, monkeypatch=monkeypatch)
    assert written(workplace) == alone


def test_no_training_image_past_the_cards_number_is_used(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(CARD, monkeypatch=monkeypatch)
    before = written(workplace)
    data = cifar10.load(Path("data/cifar10"), "auto", 200, 40)
    batches = {
        file: cifar10.read_batch(Path("data/cifar10", cifar10.FOLDER, file).read_bytes(), Path(file))
        for file in (*cifar10.TRAIN_FILES, cifar10.TEST_FILE)
    }
    batches["data_batch_2"].images[24:] = 0  # 64 = 40 + 24
    batches["data_batch_5"] = cifar10.Split(data.test.images, data.test.labels)
    cifar10.write_stand_in(Path("data/cifar10"), data.name, batches, list("ABCDEFGHIJ"))
    run(CARD, monkeypatch=monkeypatch)
    assert written(workplace) == before


# Bad input.


def assert_refused(
    card: RunCard | Path, names: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit status 2, one line, nothing written."""
    with pytest.raises(SystemExit) as caught:
        run(card, monkeypatch=monkeypatch)
    assert caught.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("train: ")
    assert error.count("\n") == 1
    assert names in error
    assert written(Path.cwd()) == {}


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_damaged_data_are_refused(
    file: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = workplace / "data" / "cifar10" / cifar10.FOLDER / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert_refused(CARD, file, monkeypatch, capsys)


@pytest.mark.parametrize(
    "changes, names",
    [
        ({"dataset": "cifar10"}, "synthetic"),
        ({"train_images": 201}, "train_images"),
        ({"test_images": 41}, "test_images"),
        ({"device": "cuda"}, "device"),
    ],
)
def test_a_card_that_cannot_be_met_here_is_refused(
    changes: dict[str, Any],
    names: str,
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert_refused(dataclasses.replace(CARD, **changes), names, monkeypatch, capsys)


def test_data_that_are_not_there_are_refused(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    os.rename("data", "elsewhere")
    assert_refused(CARD, "data_batch_1", monkeypatch, capsys)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"network": "tiny"}'])
def test_an_unknown_or_damaged_card_is_refused(
    content: str | None, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("tiny-baseline-3.json")
    if content is not None:
        path.write_text(content)
    assert_refused(path, path.name, monkeypatch, capsys)


def test_while_a_run_writes_its_checkpoint_those_beside_it_go_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, another_saved = Checkpoints.save, threading.Event()

    def slow(checkpoints: Checkpoints, snapshot: Snapshot) -> None:
        if checkpoints.run == CARD.name and snapshot.epoch == 1:
            assert another_saved.wait(60), "the other run stood still"
        save(checkpoints, snapshot)
        if checkpoints.run == IC_CARD.name:
            another_saved.set()

    monkeypatch.setattr(Checkpoints, "save", slow)
    run(CARD, IC_CARD, monkeypatch=monkeypatch)
    assert all(read_metrics(Path("metrics", f"{card.name}.json")).finished for card in (CARD, IC_CARD))


def test_a_checkpoint_that_cannot_be_written_ends_its_run_alone(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = Checkpoints.save

    def full(checkpoints: Checkpoints, snapshot: Snapshot) -> None:
        if checkpoints.run == CARD.name:
            raise BadInput("the disk is full: free some")
        save(checkpoints, snapshot)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(SystemExit) as ended:
        run(CARD, IC_CARD, monkeypatch=monkeypatch)
    assert ended.value.code == 2
    assert f"train: {CARD.name}: the disk is full: free some" in capsys.readouterr().err.splitlines()
    assert set(written(workplace)) == {f"metrics/{IC_CARD.name}.json", f"models/{IC_CARD.name}.pt"}


def test_runs_side_by_side_write_what_they_write_alone(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(CARD, IC_CARD, monkeypatch=monkeypatch)
    together = written(workplace)
    for folder in ("checkpoints", "metrics", "models"):
        shutil.rmtree(folder)
    for card in (CARD, IC_CARD):
        run(card, monkeypatch=monkeypatch)
    assert written(workplace) == together


def test_a_run_that_began_on_other_threads_than_those_beside_it_is_refused_and_they_go_on(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(CARD, monkeypatch=monkeypatch)
    alone = written(workplace)
    for folder in ("checkpoints", "metrics", "models"):
        shutil.rmtree(folder)
    run(dataclasses.replace(IC_CARD, epochs=1), monkeypatch=monkeypatch)
    monkeypatch.setattr(train, "threads_for", lambda last: 2 if last else 1)
    with pytest.raises(SystemExit, match="2"):
        run(CARD, IC_CARD, monkeypatch=monkeypatch)
    assert f"train: {IC_CARD.name}: it was trained with 2 threads, those before it here with 1: train" in (
        capsys.readouterr().err
    )
    assert torch.get_num_threads() == 1
    assert alone.items() <= written(workplace).items()


def test_a_stop_while_a_checkpoint_is_written_lets_no_other_process_in_before_it_is_there(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_whole, take, close = checkpoint.write_whole, lock.take, os.close
    begun, order, locks = threading.Event(), list[str](), list[int]()

    def slow(path: Path, content: bytes) -> None:
        if path.name == "epoch-0001.ckpt" and CARD.name in str(path):
            begun.set()
            time.sleep(0.5)
            order.append("written")
        write_whole(path, content)

    def stop() -> Iterator[None]:
        while not begun.is_set():
            yield
        raise Stopped("stopped", 15)

    monkeypatch.setattr(checkpoint, "write_whole", slow)
    monkeypatch.setattr(lock, "take", lambda *of: locks.append(take(*of)) or locks[-1])
    monkeypatch.setattr(os, "close", lambda file: (order.extend(["released"] * (file in locks)), close(file)))
    training = train.train(CARD, [CARD], train.Shared(Stop(), 2))
    with pytest.raises(Stopped):
        in_turns({"one": training, "other": stop()})
    training.close()  # as it is when the process comes to its end
    assert order == ["written", "released"]


def test_the_work_left_is_that_of_later_runs_and_unknown_where_they_are_trained_beside_this_one(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deeper = dataclasses.replace(CARD, network="deeper", blocks_per_stage=2)
    study = [CARD, IC_CARD, deeper]
    data = cifar10.load(Path("data/cifar10"), "auto", CARD.train_images, CARD.test_images)

    def later(*, alone: bool) -> object:
        return train.progress_of(CARD, study, data, alone=alone).later

    assert later(alone=True) == [1.0, 14 / 8]
    run(dataclasses.replace(IC_CARD, epochs=1), monkeypatch=monkeypatch)
    assert later(alone=True) == [0.5, 14 / 8]
    run(IC_CARD, monkeypatch=monkeypatch)
    assert later(alone=True) == [0.0, 14 / 8]
    assert later(alone=False) is None


@pytest.mark.parametrize(("runs", "of_a_study", "alone"), [(1, False, True), (2, False, False), (1, True, False)])
def test_a_run_is_alone_where_neither_its_process_nor_the_study_trains_others(runs, of_a_study, alone, monkeypatch):
    if of_a_study:
        monkeypatch.setenv(ENDS_WITH_PARENT, "1")
    assert train.Shared(Stop(), runs).alone == alone
