"""How the runs of a study are trained, as plan/study.json tells it: in words, and where it is unlike the 2021 study."""

import math
import re
from typing import Any

# Sec. 2.1, and where that is silent the README's reading: what `preset: replication` says.
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
# Of some recipes only: of SGD, and of the rule "steps".
AT_TIMES = ("momentum", "learning_rate_steps", "learning_rate_factor")


def in_full(recipe: dict[str, Any]) -> str:
    """All of a recipe."""
    return ", ".join(_words(recipe).values())


def departures(recipe: dict[str, Any]) -> list[str]:
    """What of a recipe is unlike the study's, whatever the preset is called."""
    words = _words(recipe)
    return [words[key] for key, usual in OF_THE_STUDY.items() if key in words and recipe[key] != usual]


def _words(recipe: dict[str, Any]) -> dict[str, str]:
    """By key; nothing of dropout where no run has any."""
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


def is_sound(recipe: dict[str, Any]) -> bool:
    """Whether a recipe is as plan writes it. Raises KeyError or TypeError where it lacks something or is none."""
    numbers = [recipe["learning_rate"], recipe["weight_decay"]]
    numbers += [recipe[key] for key in ("dropout_p", "momentum", "learning_rate_factor") if key in recipe]
    names = [recipe[key] for key in ("optimizer", "learning_rate_rule", "augmentation", "precision")]
    steps = recipe.get("learning_rate_steps", [])
    return (
        all(type(number) in (int, float) and 0 <= number < math.inf and float(number) == number for number in numbers)
        and all(re.fullmatch(r"[a-z0-9_]+", name) for name in names)
        and all(type(count) is int and 0 < count < 10**9 for count in [recipe["batch_size"], *steps])
        and ("learning_rate_steps" in recipe) == ("learning_rate_factor" in recipe)
    )
