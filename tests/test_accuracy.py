"""Contracts of the comparison of paths: that it is paired, fair, and says what it is made of."""

import dataclasses
import json
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from torch import nn

from benchmarks import accuracy, table
from benchmarks.accuracy import card_of, continued, trained
from benchmarks.contenders import Network
from benchmarks.data import source
from benchmarks.record import Circumstances
from benchmarks.trials import PATHS, REFERENCE, Trial, Trials, comparisons
from lib import training
from lib.errors import BadInput, StageError

OURS = "ours, bfloat16"
TINY = Network("basic", 1, "conv_relu_ic")
CIRCUMSTANCES = Circumstances("synthetic", "abc of 2021-01-02", "3.11", "2.14", "0.29", 0.1, None)


def record_of(*all_of: Trial) -> Trials:
    return Trials("CPU, 2 cores", CIRCUMSTANCES, 1000, 1, all_of)


def trials_of(path: str, accuracies: list[float], first_seed: int = 0) -> list[Trial]:
    return [Trial("resnet8", path, seed, (2.0, 1.0), (0.1, each)) for seed, each in enumerate(accuracies, first_seed)]


# ---- what is trained


def test_paths_differ_in_layers_and_precision_alone(monkeypatch):
    seen = []

    def fit(model, recipe, train_batches, test_batches, seed, start):
        images, labels = next(iter(train_batches(1)))
        weights = [each.detach().clone() for each in model.parameters()]
        kinds = {type(each) for each in model.modules()}
        seen.append((recipe.precision, nn.Dropout in kinds, weights, images.clone(), labels.clone()))
        yield dataclasses.replace(start, history=())

    monkeypatch.setattr(training, "fit", fit)
    with source(quick=True) as data:
        for path in PATHS:
            trained(TINY, path, 3, data, 1)
    assert [each[:2] for each in seen] == list(PATHS.values())
    for _, _, weights, images, labels in seen[1:]:
        torch.testing.assert_close(weights, seen[0][2], rtol=0, atol=0)
        assert torch.equal(images, seen[0][3]) and torch.equal(labels, seen[0][4])


def test_a_training_tells_every_epoch_and_a_rerun_the_same():
    with source(quick=True) as data:
        small = dataclasses.replace(data, train_images=128, test_images=64)
        first, again = (trained(TINY, OURS, 0, small, 2) for _ in range(2))
    assert first == again
    assert first.key == ("resnet8", OURS, 0)
    assert len(first.train_loss) == len(first.test_accuracy) == 2


def test_the_recipe_is_the_studys():
    with source(quick=True) as data:
        card = card_of(TINY, "float32", 1, data, 6)
    assert (card.batch_size, card.optimizer, card.learning_rate, card.dropout_p) == (64, "adam", 0.001, 0.05)


# ---- what it comes to


def test_differences_are_paired_by_seed_and_come_with_their_t_interval():
    # Differences 0.01, 0.03, 0.02: mean 0.02, deviation 0.01, t(2 degrees, 97.5 %) = 4.302653.
    record = record_of(
        *trials_of(REFERENCE, [0.5, 0.9, 0.1]),
        *trials_of("ours, float32", [0.5, 0.9, 0.1]),
        *trials_of(OURS, [0.51, 0.93, 0.12]),
    )
    found = comparisons(record)[-1].accuracy_difference
    assert found is not None and found.mean == pytest.approx(0.02)
    half_width = 0.01 * 4.302653 / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.02 - half_width, 0.02 + half_width), rel=1e-6)


def test_only_seeds_that_every_path_has_count():
    record = record_of(
        *trials_of(REFERENCE, [0.5, 0.6, 0.9]),
        *trials_of("ours, float32", [0.5, 0.6]),
        *trials_of(OURS, [0.4, 0.8, 0.1], first_seed=-1),  # seeds -1, 0, 1
    )
    reference, _, ours = comparisons(record)
    assert reference.accuracy.values == (0.5, 0.6) and reference.accuracy_difference is None
    assert ours.accuracy.values == (0.8, 0.1)
    assert ours.accuracy_difference is not None and ours.accuracy_difference.mean == pytest.approx(-0.1)
    assert ours.loss_difference is not None and ours.loss_difference.mean == 0
    assert comparisons(record_of(*trials_of(REFERENCE, [0.5, 0.6]))) == []
    assert ours.loss_difference.low is None, "equal differences are no certainty"


def test_the_table_shows_differences_with_signs_and_intervals():
    record = record_of(*(each for path in PATHS for each in trials_of(path, [0.5, 0.6, 0.61 if path == OURS else 0.6])))
    text = re.sub(" +", " ", table.learned(record))  # without padding
    assert "| resnet8 | nn.Dropout, float32 | 3 | 0.5667 ± 0.0577 | – | – | – | – |" in text
    assert "| resnet8 | ours, bfloat16 | 3 | 0.5700 ± 0.0608 | +0.0033 | [-0.0110, +0.0177] | +0.0000 | – |" in text
    assert "1 epoch of 1,000 images on CPU, 2 cores" in text


# ---- the record


def test_a_record_is_read_as_it_was_written(tmp_path):
    record = record_of(*trials_of(REFERENCE, [0.5]))
    record.write(tmp_path / "accuracy.json")
    assert Trials.read(tmp_path / "accuracy.json") == record


@pytest.mark.parametrize("damage", ["trials", "circumstances", "device"])
def test_what_is_not_a_record_is_refused(damage, tmp_path):
    entry = dataclasses.asdict(record_of())
    del entry[damage]
    (tmp_path / "accuracy.json").write_text(json.dumps(entry))
    with pytest.raises(BadInput, match=r"delete it and run `python -m benchmarks\.accuracy`"):
        Trials.read(tmp_path / "accuracy.json")


def test_a_comparison_goes_on_only_with_its_own_trainings(tmp_path):
    path = tmp_path / "accuracy.json"
    assert continued(record_of(), path) == record_of()
    before = record_of(*trials_of(REFERENCE, [0.5]))
    before.write(path)
    assert continued(record_of(), path) == before
    edited = dataclasses.replace(CIRCUMSTANCES, commit="abc of 2021-01-02 modified")  # two of them may differ
    with pytest.raises(BadInput, match="commit them, or move it away"):
        continued(dataclasses.replace(record_of(), circumstances=edited), path)
    others = {"epochs": 2}, {"images": 2}, {"circumstances": dataclasses.replace(CIRCUMSTANCES, dataset="cifar10")}
    for other in others:
        with pytest.raises(BadInput, match="1 epochs of 1000 synthetic images.*move it away"):
            continued(dataclasses.replace(record_of(), **other), path)


@pytest.mark.parametrize("options", [["--epochs", "0"], ["--seeds", "-1"], ["--images", "x"], ["--images", "10001"]])
def test_an_option_that_cannot_be_is_refused_by_name(options, capsys):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr("sys.argv", ["accuracy", *options])
        accuracy.main()
    assert stopped.value.code == 2 and options[0] in capsys.readouterr().err


def test_a_process_that_is_killed_is_told_of_in_one_line():
    """As where memory runs out."""
    spawn = multiprocessing.get_context("spawn")
    with pytest.raises(StageError, match="was killed"), ProcessPoolExecutor(1, spawn) as pool:
        with accuracy._none_left_waiting(pool):
            pool.submit(os._exit, 9).result()


def test_what_the_record_has_is_not_trained_again(tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy, "RECORD", tmp_path / "accuracy.json")
    monkeypatch.setattr(accuracy, "NETWORKS", (TINY,))
    monkeypatch.setattr(accuracy, "trained", lambda *each: pytest.fail("trained again"))
    with source(quick=True) as data:
        accuracy.compare(record_of(*(each for path in PATHS for each in trials_of(path, [0.5]))), range(1), data)
    assert not (tmp_path / "accuracy.json").exists()
