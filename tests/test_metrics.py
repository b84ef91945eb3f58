import dataclasses
import json

import pytest

from lib.errors import BadInput
from lib.metrics import EpochRecord, RunFacts, read_metrics, write_metrics
from lib.recipe import OF_THE_STUDY

FACTS = RunFacts(
    network="resnet110",
    block="basic",
    depth=110,
    ordering="conv_relu_ic",
    seed=0,
    dataset="synthetic",
    train_images=128,
    test_images=40,
    epochs=4,
    recipe=OF_THE_STUDY | {"learning_rate_rule": "steps", "learning_rate_steps": [2], "learning_rate_factor": 0.1},
    parameters=1_731_674,
    torch="2.14.1",
    device="cpu",
)
HISTORY = (
    EpochRecord(1, 0.001, train_loss=2.1, train_accuracy=0.21, test_loss=1.9, test_accuracy=0.31),
    EpochRecord(2, 0.001, train_loss=1.6, train_accuracy=0.42, test_loss=1.4, test_accuracy=0.55),  # the best
    EpochRecord(3, 0.0001, train_loss=1.5, train_accuracy=0.44, test_loss=1.5, test_accuracy=0.5),
)
NAME = "resnet110-conv_relu_ic-0.json"


@pytest.fixture
def path(tmp_path):
    write_metrics(tmp_path / NAME, FACTS, HISTORY)
    return tmp_path / NAME


def test_metrics_read_back_are_the_metrics_written(path):
    run = read_metrics(path)
    assert (run.facts, run.history) == (FACTS, HISTORY)
    assert path.stem == run.name


def test_the_schema_is_two_numbers_the_facts_in_a_list_of_one_and_a_record_per_epoch(path):
    content = json.loads(path.read_bytes())
    assert set(content) == {"test_accuracy", "test_loss", "run", "history"}
    assert content["run"] == [dataclasses.asdict(FACTS)]
    assert content["history"] == [dataclasses.asdict(record) for record in HISTORY]
    assert set(content["history"][0]) == {
        *("epoch", "learning_rate", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
    }


def test_the_numbers_reported_are_the_last_epochs_not_the_bests(path):
    content = json.loads(path.read_bytes())
    assert (content["test_accuracy"], content["test_loss"]) == (0.5, 1.5)
    assert read_metrics(path).test_accuracy == 0.5


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_is_finished_when_it_has_all_epochs_asked_for(epochs, tmp_path):
    write_metrics(tmp_path / NAME, dataclasses.replace(FACTS, epochs=3), HISTORY[:epochs])
    assert read_metrics(tmp_path / NAME).finished == (epochs == 3)


def test_writing_what_was_read_gives_the_same_bytes(path):
    before = path.read_bytes()
    run = read_metrics(path)
    write_metrics(path, run.facts, run.history)
    assert path.read_bytes() == before


@pytest.mark.parametrize("field", ["train_loss", "test_loss", "test_accuracy", "learning_rate"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_a_number_is_never_written_and_the_old_file_stays(field, value, path):
    before = path.read_bytes()
    with pytest.raises(ValueError):
        write_metrics(path, FACTS, [dataclasses.replace(HISTORY[0], **{field: value}), *HISTORY[1:]])
    assert path.read_bytes() == before


DAMAGE = {
    "no run": lambda file: file.pop("run"),
    "no run in the list": lambda file: file["run"].clear(),
    "two runs": lambda file: file["run"].append(file["run"][0]),
    "run is a number": lambda file: file.update(run=3),
    "the run's facts are a list": lambda file: file.update(run=[[1, 2]]),
    "the run's facts are null": lambda file: file.update(run=[None]),
    "a fact is missing": lambda file: file["run"][0].pop("torch"),
    "a fact is foreign": lambda file: file["run"][0].update(lr=0.1),
    "a fact is text for a number": lambda file: file["run"][0].update(depth="110"),
    "a fact is a number for text": lambda file: file["run"][0].update(device=0),
    "a fact is true for a number": lambda file: file["run"][0].update(seed=False),
    "a fact is null": lambda file: file["run"][0].update(dataset=None),
    "no recipe": lambda file: file["run"][0].pop("recipe"),
    "the recipe is null": lambda file: file["run"][0].update(recipe=None),
    "the recipe lacks something": lambda file: file["run"][0]["recipe"].pop("precision"),
    "the recipe has something foreign": lambda file: file["run"][0]["recipe"].update(warm_up=5),
    "the recipe has text for a number": lambda file: file["run"][0]["recipe"].update(batch_size="64"),
    "no history": lambda file: file.pop("history"),
    "history is null": lambda file: file.update(history=None),
    "history is empty": lambda file: file["history"].clear(),
    "history is of numbers": lambda file: file.update(history=[0.1, 0.2]),
    "an epoch is missing": lambda file: file["history"].pop(1),
    "an epoch stands twice": lambda file: file["history"].insert(1, file["history"][0]),
    "epochs are out of order": lambda file: file["history"].reverse(),
    "epochs begin at 0": lambda file: [each.update(epoch=each["epoch"] - 1) for each in file["history"]],
    "epochs are fractions": lambda file: [each.update(epoch=float(each["epoch"])) for each in file["history"]],
    "more epochs than asked for": lambda file: file["run"][0].update(epochs=2),
    "a record lacks a field": lambda file: file["history"][1].pop("test_loss"),
    "a record has a foreign field": lambda file: file["history"][1].update(seconds=12.5),
    "a record has text for a number": lambda file: file["history"][1].update(test_loss="1.4"),
    "a record has true for a number": lambda file: file["history"][1].update(train_accuracy=True),
    "a loss is NaN": lambda file: file["history"][1].update(train_loss=float("nan")),
    "a loss is infinite": lambda file: file["history"][1].update(train_loss=float("inf")),
    "no test_accuracy": lambda file: file.pop("test_accuracy"),
    "test_accuracy is the best epoch's": lambda file: file.update(test_accuracy=0.55),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_metrics_are_refused_by_name_in_one_line(damage, path):
    content = json.loads(path.read_bytes())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput) as refusal:
        read_metrics(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("damage", [lambda file: file.pop("test_loss"), lambda file: file.update(test_loss=1.4)])
def test_metrics_whose_test_loss_is_not_the_last_epochs_are_refused(damage, path):
    test_damaged_metrics_are_refused_by_name_in_one_line(damage, path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"null", b"0.5", b"<<<<<<< HEAD\n{}\n", b"\xff"])
def test_what_is_no_metrics_at_all_is_refused_by_name_in_one_line(content, path):
    path.write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        read_metrics(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_metrics_torn_anywhere_are_refused_by_name(path):
    whole = path.read_bytes()
    for length in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput) as refusal:
            read_metrics(path)
        assert str(path) in str(refusal.value)


def test_metrics_that_are_not_there_are_refused_by_name(tmp_path):
    with pytest.raises(BadInput) as refusal:
        read_metrics(tmp_path / NAME)
    assert str(tmp_path / NAME) in str(refusal.value)


def test_metrics_under_the_name_of_another_run_are_refused_by_both_names(path):
    other = path.rename(path.with_name("resnet110-baseline-0.json"))
    with pytest.raises(BadInput, match="resnet110-conv_relu_ic-0") as refusal:
        read_metrics(other)
    assert str(other) in str(refusal.value)
