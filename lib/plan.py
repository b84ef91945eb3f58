"""Parameters -> validated study -> run cards. Everything is checked here, before a file is touched."""

import dataclasses
import decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from lib.card import BASELINES, NAME, VALIDATION, RunCard, depth
from lib.errors import BadInput
from lib.strict_yaml import read_mapping
from lib.words import nearest

# Layer names that an ordering may be made of, and whether such a layer drops values.
LAYERS = {"relu": False, "ic": True, "conv": False, "bn": False, "dropout": True}
OWN_TO_THE_TOP = ("preset", "presets", "seeds", "orderings")  # not in presets: dvc.yaml makes stages of the last two
TRAIN_IMAGES, HELD_OUT = 50_000, 10_000  # of CIFAR-10; of these for VALIDATION
DIGITS_TO_WRITE = 20  # of a number that is suggested


def checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError("a name has at most 48 lower-case letters, digits and _, and begins with a letter")
    return name


def checked_ordering(name: str) -> str:
    layers = name.split("_")
    if name not in BASELINES and (layers.count("conv") != 1 or not set(layers) <= LAYERS.keys()):
        raise ValueError(
            f"an ordering is {' or '.join(BASELINES)}, or a unit's layers joined by _, conv once: {', '.join(LAYERS)}"
        )
    return checked_name(name)


def distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("each value may appear only once")
    return values


def ascending(values: list[int]) -> list[int]:
    if values != sorted(set(values)):
        raise ValueError("the epochs must be in increasing order")
    return values


def not_too_large_for_float32(value: float) -> float:
    if value > 1e38:  # on a GPU the rate is a float32, of at most 3.4e38
        raise ValueError("it should be at most 1e38")
    return value


Name = Annotated[str, AfterValidator(checked_name)]
OrderingName = Annotated[str, AfterValidator(checked_ordering)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False), AfterValidator(not_too_large_for_float32)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]  # more is a typo, and would end in a traceback days later
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Strict(BaseModel):
    """No unknown keys, no strings for numbers, no true for 1."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Network(Strict):
    block: Literal["basic", "bottleneck"]
    blocks_per_stage: Count


class Report(Strict):
    figure_dpi: Annotated[int, Field(ge=50, le=600)]
    accuracy_from: Annotated[float, Field(ge=0, lt=1)]


class Study(Strict):
    """params.yaml with its preset applied. The keys are explained there."""

    preset: Name
    dataset: Literal["cifar10", "cifar10_validation", "auto", "synthetic"]
    train_images: Annotated[int, Field(ge=1, le=TRAIN_IMAGES)]
    test_images: Annotated[int, Field(ge=1, le=10_000)]
    augmentation: Literal["none", "crop_flip"]
    dropout_p: Annotated[float, Field(ge=0, lt=1)]
    epochs: Count
    batch_size: Annotated[int, Field(ge=2, lt=32_768)]  # that many would make maps of 2^31 values
    optimizer: Literal["adam", "sgd"]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    learning_rate: Rate
    learning_rate_rule: Literal["constant", "steps"]
    learning_rate_steps: Annotated[list[Count], AfterValidator(ascending)]
    learning_rate_factor: Annotated[float, Field(gt=0, le=1)]
    precision: Literal["float32", "bfloat16"]
    device: Literal["auto", "cpu", "cuda"]
    seeds: Annotated[list[Seed], Field(min_length=1), AfterValidator(distinct)]
    networks: Annotated[dict[Name, Network], Field(min_length=1)]
    orderings: Annotated[list[OrderingName], Field(min_length=1), AfterValidator(distinct)]
    report: Report
    _set_by_preset: tuple[str, ...] = PrivateAttr(())

    @property
    def set_by_preset(self) -> tuple[str, ...]:
        """The keys that the preset sets itself; of networks, those that it names."""
        return self._set_by_preset

    def cards(self) -> list[RunCard]:
        """One card per network, ordering and seed, in Table 1's order."""
        return [
            self._card(network, ordering, seed)
            for network in self.networks
            for ordering in self.orderings
            for seed in self.seeds
        ]

    def _card(self, network: str, ordering: str, seed: int) -> RunCard:
        """A run's card, without the fields it does not use."""
        used: dict[str, Any] = {field.name: getattr(self, field.name, None) for field in dataclasses.fields(RunCard)}
        used |= {"network": network, "ordering": ordering, "seed": seed, **self.networks[network].model_dump()}
        used["learning_rate_steps"] = tuple(self.learning_rate_steps)
        if not any(LAYERS[layer] for layer in BASELINES.get(ordering, ordering).split("_")):
            used["dropout_p"] = None
        if self.optimizer != "sgd":
            used["momentum"] = None
        if self.learning_rate_rule != "steps":
            used["learning_rate_steps"] = used["learning_rate_factor"] = None
        return RunCard(**used)

    def summary(self) -> dict[str, Any]:
        """What download and report need to know (plan/study.json)."""
        return {
            "runs": [card.name for card in self.cards()],
            "networks": {
                name: {"block": each.block, "depth": depth(each.block, each.blocks_per_stage)}
                for name, each in self.networks.items()
            },
            **self.model_dump(include={"preset", "dataset", "train_images", "test_images", "epochs", "report"}),
            "recipe": self._recipe(),
        }

    def _recipe(self) -> dict[str, Any]:
        """How the runs are trained, without fields that none uses."""
        recipe: dict[str, Any] = {}
        for card in self.cards():
            recipe |= card.recipe
        return recipe


def read_study(path: Path) -> Study:
    """Read and check params.yaml. Raises BadInput: one line with the key, its value and the fix."""
    params = read_mapping(path)
    presets = params.pop("presets", {"replication": {}})
    preset = params.get("preset")
    if not isinstance(presets, dict):
        raise BadInput(f"{path}: presets is not a mapping of names to overrides: see the README")
    if not isinstance(preset, str) or preset not in presets:
        known = ", ".join(map(str, presets))
        raise BadInput(f"{path}: preset: there is no {preset!r}, only {known}{nearest(preset, presets)}")
    studies = {name: _with_preset(path, params, name, overrides or {}) for name, overrides in presets.items()}
    study = studies[preset]
    if study.dataset == VALIDATION and study.train_images > TRAIN_IMAGES - HELD_OUT:
        raise BadInput(
            f"{path}: train_images: {study.train_images}: dataset {VALIDATION} holds {HELD_OUT:,} of the "
            f"{TRAIN_IMAGES:,} out: write {TRAIN_IMAGES - HELD_OUT} or less (preset {preset})"
        )
    return study


def _with_preset(path: Path, params: dict[str, Any], preset: str, overrides: Any) -> Study:
    """The study under one preset, which wins over the top-level values it names. Raises BadInput."""
    where = f"presets.{preset}."
    if not isinstance(overrides, dict):
        raise BadInput(f"{path}: {where[:-1]} is not a mapping of parameters to values: see the README")
    for key in overrides:
        if key in OWN_TO_THE_TOP:
            raise BadInput(f"{path}: {where}{key}: a preset cannot set {key}: set it at the top level")
    merged = {**params, **overrides, "preset": preset}
    if isinstance(overrides.get("networks"), dict) and isinstance(params.get("networks"), dict):
        networks = params["networks"]
        unknown = [name for name in overrides["networks"] if name not in networks]
        if unknown and preset == params["preset"]:  # others may still name one that was removed
            raise BadInput(
                f"{path}: {where}networks: there is no network {unknown[0]!r}{nearest(unknown[0], networks)}; "
                f"take it out here (-S '~{where}networks.{unknown[0]}'), or add it to the top-level networks"
            )
        merged["networks"] = networks | {name: each for name, each in overrides["networks"].items() if name in networks}
    try:
        study = Study.model_validate(merged)
        study._set_by_preset = tuple(overrides)
        return study
    except ValidationError as error:
        # A mistyped key is also a missing one: the unknown key says more.
        first = min(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
        named_by_preset = first["loc"] and first["loc"][0] in overrides
        raise BadInput(f"{path}: {_one_line(first, where if named_by_preset else '')}") from None


def _one_line(error: Any, where: str) -> str:
    """A pydantic error as: key, value, what is wrong, the fix."""
    value, kind, location = error["input"], error["type"], error["loc"]
    if location[-1:] == ("[key]",):  # a mapping's key is wrong: the value is the key
        location = (*location[:-2], value)
    key = " ".join((where + ".".join(map(str, location))).split())
    if kind == "missing":
        return f"{key} is missing: add it, or restore the file by `git checkout params.yaml`"
    if kind == "extra_forbidden":
        known = _keys_beside(error["loc"])
        return f"unknown key {key}{nearest(error['loc'][-1], known)}"
    problem = error["msg"].removeprefix("Value error, ")
    if kind == "list_type":
        problem = "expected a list, such as [0, 1]"
    if isinstance(value, str) and kind in ("float_type", "int_type"):
        problem = f"expected a number, and this is text{_number_hint(value, whole=kind == 'int_type')}"
    return f"{key}: {value!r}: {problem.replace('Input', 'it')}"


def _number_hint(text: str, *, whole: bool) -> str:
    """How to write what was probably meant."""
    try:
        number = decimal.Decimal(text)
    except decimal.InvalidOperation:
        return ""
    if not number.is_finite() or abs(number.adjusted()) > DIGITS_TO_WRITE or (whole and number % 1):
        return ""
    return f": write {number:f}"


def _keys_beside(location: tuple[Any, ...]) -> list[str]:
    models: dict[Any, type[BaseModel]] = {"networks": Network, "report": Report}
    model = models.get(location[0], Study) if len(location) > 1 else Study
    return [*model.model_fields, *(["presets"] if model is Study else [])]
