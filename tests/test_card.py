import dataclasses
import json
from pathlib import Path

import pytest

from lib.card import VALIDATION, RunCard, is_wanted
from lib.errors import BadInput
from lib.files import canonical_json

FULL = RunCard(
    network="resnet110",
    block="basic",
    blocks_per_stage=18,
    ordering="relu_ic_conv",
    dropout_p=0.05,
    seed=3,
    dataset="cifar10",
    train_images=50000,
    test_images=10000,
    augmentation="crop_flip",
    precision="float32",
    device="auto",
    epochs=200,
    batch_size=64,
    optimizer="sgd",
    momentum=0.9,
    weight_decay=0.0001,
    learning_rate=0.001,
    learning_rate_rule="steps",
    learning_rate_steps=(80, 120),
    learning_rate_factor=0.1,
)
UNUSED = ("dropout_p", "momentum", "learning_rate_steps", "learning_rate_factor")
LEAN = dataclasses.replace(
    FULL, ordering="baseline", optimizer="adam", learning_rate_rule="constant", **dict.fromkeys(UNUSED)
)
LEAN_BYTES = b"""{
  "augmentation": "crop_flip",
  "batch_size": 64,
  "block": "basic",
  "blocks_per_stage": 18,
  "dataset": "cifar10",
  "device": "auto",
  "epochs": 200,
  "learning_rate": 0.001,
  "learning_rate_rule": "constant",
  "network": "resnet110",
  "optimizer": "adam",
  "ordering": "baseline",
  "precision": "float32",
  "seed": 3,
  "sha256": "1b028280f0236f122538039c91059f1559259aeda1fd9acd6aa7f22e44872691",
  "test_images": 10000,
  "train_images": 50000,
  "weight_decay": 0.0001
}
"""

# Each field with another value than FULL's; test_a_fingerprint_... says that none is missing.
CHANGES = [
    ("network", "resnet164"),
    ("block", "bottleneck"),
    ("blocks_per_stage", 17),
    ("ordering", "conv_relu_ic"),
    ("dropout_p", 0.06),
    ("seed", 4),
    ("train_images", 49999),
    ("test_images", 9999),
    ("augmentation", "none"),
    ("precision", "bfloat16"),
    ("batch_size", 65),
    ("optimizer", "adam"),
    ("momentum", 0.8),
    ("weight_decay", 0.0002),
    ("learning_rate", 0.002),
    ("learning_rate_rule", "constant"),
    ("learning_rate_steps", (80, 121)),
    ("learning_rate_factor", 0.2),
]


def written(card: RunCard, folder: Path) -> Path:
    path = folder / f"{card.name}.json"
    card.write(path)
    return path


@pytest.mark.parametrize("card", [FULL, LEAN], ids=lambda card: card.name)
def test_a_card_read_back_is_the_card_written(card, tmp_path):
    assert RunCard.read(written(card, tmp_path)) == card


@pytest.mark.parametrize("card", [FULL, LEAN], ids=lambda card: card.name)
def test_a_file_has_the_fields_that_are_used_and_no_others(card, tmp_path):
    used = {key for key, value in dataclasses.asdict(card).items() if value is not None}
    assert set(json.loads(written(card, tmp_path).read_bytes())) == used | {"sha256"}


def test_a_card_has_one_spelling(tmp_path):
    assert written(LEAN, tmp_path).read_bytes() == LEAN_BYTES


def test_reading_and_writing_again_leaves_the_bytes(tmp_path):
    path = written(FULL, tmp_path)
    before = path.read_bytes()
    RunCard.read(path).write(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        (b"0.0001", b"0.0009"),
        (b"baseline", b"baselina"),
        (b'"seed": 3', b'"seed": 2'),
        (b'"sha256": "', b'"sha256": "0'),
    ],
)
def test_a_card_that_was_changed_is_refused(change, tmp_path):
    path = written(LEAN, tmp_path)
    content = path.read_bytes()
    assert content.count(change[0]) == 1
    path.write_bytes(content.replace(*change))
    with pytest.raises(BadInput, match="changed by hand.*stages.plan"):
        RunCard.read(path)


def test_a_fingerprint_is_of_all_that_decides_the_result_and_of_nothing_else():
    code = {"lib/ic.py": "code"}
    plain = FULL.identity("data", code)
    others = [dataclasses.replace(FULL, **{key: value}).identity("data", code) for key, value in CHANGES]
    others += [FULL.identity("other", code), FULL.identity("data", {"lib/ic.py": "other"})]
    assert plain not in others
    assert len({canonical_json(other) for other in others}) == len(others)
    beside = {"epochs", "dataset", "device"}
    assert {key for key, _ in CHANGES} == {field.name for field in dataclasses.fields(RunCard)} - beside


@pytest.mark.parametrize("change", [{"dataset": "auto"}, {"device": "cuda"}])
def test_a_run_is_the_same_wherever_its_data_came_from_and_whatever_device_was_named(change):
    assert dataclasses.replace(FULL, **change) != FULL
    assert dataclasses.replace(FULL, **change).identity("data", {}) == FULL.identity("data", {})


def test_a_run_with_training_images_held_out_is_another():
    """Its data are the same files."""
    held_out = dataclasses.replace(FULL, dataset=VALIDATION)
    assert held_out.identity("data", {}) != FULL.identity("data", {})


@pytest.mark.parametrize(
    ("dataset", "wanted", "is_it"),
    [
        ("cifar10", "cifar10", True),
        ("cifar10", "auto", True),
        ("synthetic", "auto", True),
        ("synthetic", "cifar10", False),
        (VALIDATION, VALIDATION, True),
        (VALIDATION, "auto", False),
        (VALIDATION, "cifar10", False),
    ],
)
def test_a_run_on_the_validation_set_is_taken_for_no_other(dataset, wanted, is_it):
    assert is_wanted(dataset, wanted) == is_it


def test_a_longer_run_of_a_card_goes_on_where_the_shorter_ended_if_the_rate_allows_it():
    longer = dataclasses.replace(LEAN, epochs=LEAN.epochs + 10)
    assert longer.identity("data", {}) == LEAN.identity("data", {})
    rule = {"learning_rate_rule": "cosine"}  # one that must know how many epochs are to come
    one, other = (dataclasses.replace(card, **rule).identity("data", {}) for card in (LEAN, longer))
    assert one != other


def test_fields_may_be_left_out_only_where_a_run_may_not_use_them():
    optional = {field.name for field in dataclasses.fields(RunCard) if field.default is None}
    assert optional == set(UNUSED)


def test_derived_seeds_differ_by_seed_purpose_epoch_and_step_and_fit_31_bits():
    derived = [
        dataclasses.replace(FULL, seed=seed).seed_for(purpose, epoch, step)
        for seed in (0, 1, 11, 2**32 - 1)
        for purpose in ("initial weights", "order", "dropout")
        for epoch in (0, 1, 10, 11, 111)
        for step in (0, 1, 11, 782)
    ]
    assert len(set(derived)) == len(derived)
    assert all(0 <= seed < 2**31 for seed in derived)
    assert max(derived) > 2**30  # not a small part of the range either


def test_derived_seeds_depend_on_the_seed_alone():
    other = {"network": "resnetb164", "block": "bottleneck", "blocks_per_stage": 1, "epochs": 7, "dropout_p": 0.5}
    for card in (LEAN, dataclasses.replace(FULL, **other)):
        assert card.seed_for("order", 5) == FULL.seed_for("order", 5)


def test_derived_seeds_are_the_same_on_every_machine_and_day():
    assert FULL.seed_for("order", 5) == 1307174994  # another value would make every committed result another's
    assert FULL.seed_for("dropout", 5, 7) == 2136806765


BAD_VALUES = [
    ("network", 110),
    ("ordering", None),
    ("seed", "3"),
    ("seed", 3.0),
    ("seed", True),
    ("epochs", True),
    ("epochs", 2.5),
    ("dropout_p", True),
    ("dropout_p", "0.05"),
    ("dropout_p", None),
    ("learning_rate", [0.001]),
    ("weight_decay", False),
    ("learning_rate_steps", 80),
    ("learning_rate_steps", [80, 120.5]),
    ("learning_rate_steps", [80, True]),
    ("learning_rate_steps", {"80": 1}),
]


@pytest.mark.parametrize(("key", "value"), BAD_VALUES, ids=lambda each: str(each))
def test_a_card_with_a_value_of_the_wrong_type_is_refused_by_file_and_key(key, value, tmp_path):
    path = written(FULL, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {key: value}))
    with pytest.raises(BadInput) as refusal:
        RunCard.read(path)
    assert str(path) in str(refusal.value) and key in str(refusal.value)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(RunCard) if field.name not in UNUSED])
def test_a_card_without_a_required_key_is_refused_by_file_and_key(key, tmp_path):
    path = written(FULL, tmp_path)
    content = json.loads(path.read_bytes())
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(BadInput) as refusal:
        RunCard.read(path)
    assert str(path) in str(refusal.value) and f" {key} " in str(refusal.value)


def test_a_card_with_an_unknown_key_is_refused_by_file_and_key(tmp_path):
    path = written(FULL, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"droput_p": 0.1}))
    with pytest.raises(BadInput, match="droput_p") as refusal:
        RunCard.read(path)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"7", b'"card"', b"\xff\xfe", LEAN_BYTES[:-3]])
def test_what_is_no_card_at_all_is_refused_by_file(content, tmp_path):
    path = tmp_path / f"{LEAN.name}.json"
    path.write_bytes(content)
    with pytest.raises(BadInput) as refusal:
        RunCard.read(path)
    assert str(path) in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_card_that_is_not_there_is_refused_by_file(tmp_path):
    path = tmp_path / f"{LEAN.name}.json"
    with pytest.raises(BadInput) as refusal:
        RunCard.read(path)
    assert str(path) in str(refusal.value)


def test_a_card_under_the_name_of_another_run_is_refused_by_both_names(tmp_path):
    path = written(LEAN, tmp_path).rename(tmp_path / "resnet110-baseline-4.json")
    with pytest.raises(BadInput, match=LEAN.name) as refusal:
        RunCard.read(path)
    assert str(path) in str(refusal.value)
