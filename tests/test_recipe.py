"""lib/recipe.py: how runs were trained, in words."""

from typing import Any

import pytest

from lib.recipe import OF_THE_STUDY, departures, in_full, is_sound

STEPS = {"learning_rate_rule": "steps", "learning_rate_steps": [80, 120], "learning_rate_factor": 0.1}


def test_the_studys_recipe_in_full() -> None:
    assert in_full(OF_THE_STUDY) == (
        "Adam, learning rate 0.001, constant, batches of 64, weight decay 0, augmentation none, float32, "
        "dropout p = 0.05"
    )
    assert departures(OF_THE_STUDY) == []


@pytest.mark.parametrize(
    ("unlike", "words"),
    [
        ({"optimizer": "sgd", "momentum": 0.9}, ["SGD with momentum 0.9"]),
        ({"learning_rate": 0.01}, ["learning rate 0.01"]),
        (STEPS, ["times 0.1 after epochs (80, 120)"]),
        ({"batch_size": 32}, ["batches of 32"]),
        ({"weight_decay": 0.0001}, ["weight decay 0.0001"]),
        ({"augmentation": "crop_flip"}, ["augmentation crop_flip"]),
        ({"dropout_p": 0.1}, ["dropout p = 0.1"]),
        ({"precision": "bfloat16", "batch_size": 32}, ["batches of 32", "bfloat16"]),
    ],
)
def test_what_is_unlike_the_study_is_told_and_nothing_else(unlike: dict[str, Any], words: list[str]) -> None:
    recipe = OF_THE_STUDY | unlike
    assert is_sound(recipe)
    assert departures(recipe) == words
    assert all(each in in_full(recipe) for each in words)


def test_every_key_tells() -> None:
    other = {float: 0.25, int: 7, str: "another", bool: True}
    for key, usual in OF_THE_STUDY.items():
        assert departures(OF_THE_STUDY | {key: other[type(usual)]}), key


def test_where_no_run_has_dropout_none_is_told_of() -> None:
    without = {key: value for key, value in OF_THE_STUDY.items() if key != "dropout_p"}
    assert is_sound(without)
    assert "dropout" not in in_full(without) and departures(without) == []


@pytest.mark.parametrize(
    "wrong",
    [
        *({"learning_rate": value} for value in (-1, float("inf"), float("nan"), "0.1", True)),
        *({"batch_size": value} for value in (0, 0.5, "64")),
        *({"optimizer": value} for value in ("", "a\nb")),
        {"learning_rate_steps": [0.5], "learning_rate_factor": 0.1},
        {"learning_rate_steps": [80]},
        {"warm_up": 5},
    ],
)
def test_a_recipe_that_plan_would_not_write_is_not_sound(wrong: dict[str, Any]) -> None:
    assert not is_sound(OF_THE_STUDY | wrong)
