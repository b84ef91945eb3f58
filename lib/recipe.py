"""How a study's runs are trained, from plan/study.json: in words, and where that differs from the 2021 study."""

import math
import re
from typing import Any

from lib.card import is_recipe

# Sec. 2.1, and where that is silent the choices in docs/recipe.md: `preset: replication`.
OF_THE_STUDY: dict[str, Any] = {
    "optimizer": "adam",
    "learning_rate": 0.001,
    "learning_rate_rule": "constant",
    "batch_size": 64,
    "weight_decay": 0.0,
    "augmentation": "none",
    "dropout_p": 0.05,
    "precision": "float32",
}


def in_full(recipe: dict[str, Any]) -> str:
    """A recipe's parts in words."""
    return ", ".join(_words(recipe).values())


def departures(recipe: dict[str, Any]) -> list[str]:
    """Where a recipe differs from the study's, whatever the preset is called."""
    words = _words(recipe)
    return [words[key] for key, usual in OF_THE_STUDY.items() if key in words and recipe[key] != usual]


def _words(recipe: dict[str, Any]) -> dict[str, str]:
    """In words, by key; no dropout if no run has any."""
    momentum = f" with momentum {recipe['momentum']:g}" if "momentum" in recipe else ""
    optimizer = {"adam": "Adam", "sgd": "SGD"}.get(recipe["optimizer"], recipe["optimizer"])
    words = {
        "optimizer": f"{optimizer}{momentum}",
        "learning_rate": f"learning rate {recipe['learning_rate']:g}",
        "learning_rate_rule": "constant",
        "batch_size": f"batches of {recipe['batch_size']}",
        "weight_decay": f"weight decay {recipe['weight_decay']:g}",
        "augmentation": f"augmentation {recipe['augmentation']}",
        "precision": recipe["precision"],
    }
    if "learning_rate_steps" in recipe:
        after = ", ".join(map(str, recipe["learning_rate_steps"]))
        words["learning_rate_rule"] = f"times {recipe['learning_rate_factor']:g} after epochs ({after})"
    if "dropout_p" in recipe:
        words["dropout_p"] = f"dropout p = {recipe['dropout_p']:g}"
    return words


def is_sound(recipe: Any) -> bool:
    """Whether a recipe is as plan writes it. Raises OverflowError for a number too large for a float."""
    if not is_recipe(recipe):
        return False
    numbers = ("learning_rate", "weight_decay", "dropout_p", "momentum", "learning_rate_factor")
    names = ("optimizer", "learning_rate_rule", "augmentation", "precision")
    return (
        all(0 <= float(recipe[key]) < math.inf for key in numbers if key in recipe)
        and all(re.fullmatch(r"[a-z0-9_]+", recipe[key]) for key in names)
        and all(0 < count < 10**9 for count in [recipe["batch_size"], *recipe.get("learning_rate_steps", [])])
        and ("learning_rate_steps" in recipe) == ("learning_rate_factor" in recipe)
    )
