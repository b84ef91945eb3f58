"""Run cards: one small file per run, with every parameter that the run uses and no other."""

import dataclasses
import hashlib
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole

SCHEMA = 1  # of checkpoints: raising it invalidates all older ones
CHECKSUM = "sha256"  # a key in a card's file: the SHA-256 of the rest
RULES_OF_THE_EPOCH_ALONE = ("constant", "steps")  # learning-rate rules that do not depend on the number of epochs
RECIPE = (  # a card's fields that say how its run is trained
    *("optimizer", "momentum", "weight_decay", "batch_size", "precision", "augmentation", "dropout_p"),
    *("learning_rate", "learning_rate_rule", "learning_rate_steps", "learning_rate_factor"),
)
VALIDATION = "cifar10_validation"  # a data set: CIFAR-10 with the last 10,000 training images held out
WEIGHT_LAYERS = {"basic": 2, "bottleneck": 3}  # per block (the 2021 study, Sec. 2)
BASELINES = {"baseline": "bn", "baseline_ic": "ic"}  # orderings with Fig. 2a's block, and what normalises their units
CURE = "`python -m stages.plan` writes it"  # for an invalid card or plan/study.json
NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")  # what may become part of a path or a stage's name


class RunName(NamedTuple):
    """A run's name, `<network>-<ordering>-<seed>`, shared by its files and its stage."""

    network: str
    ordering: str
    seed: int

    def __str__(self) -> str:
        return f"{self.network}-{self.ordering}-{self.seed}"

    @classmethod
    def parse(cls, name: str) -> "RunName":
        """Raises ValueError if it is not a run's name."""
        network, ordering, seed = name.split("-")
        return cls(network, ordering, int(seed))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunCard:
    """One training run. A field that this run does not use is None, and left out of the file."""

    network: str
    block: str  # "basic" or "bottleneck"
    blocks_per_stage: int  # n: a network has three stages of n blocks
    ordering: str
    dropout_p: float | None = None  # probability of zeroing; orderings with dropout only
    seed: int
    dataset: str
    train_images: int
    test_images: int
    augmentation: str
    precision: str
    device: str
    epochs: int
    batch_size: int
    optimizer: str
    momentum: float | None = None  # SGD only
    weight_decay: float
    learning_rate: float
    learning_rate_rule: str
    learning_rate_steps: tuple[int, ...] | None = None  # epochs after which the rate drops; rule "steps" only
    learning_rate_factor: float | None = None  # factor of each drop; rule "steps" only

    @property
    def name(self) -> str:
        """The run's name."""
        return str(RunName(self.network, self.ordering, self.seed))

    @property
    def depth(self) -> int:
        """The number of weight layers."""
        return depth(self.block, self.blocks_per_stage)

    @property
    def recipe(self) -> dict[str, Any]:
        """How the run is trained, as JSON values, without fields that it does not use."""
        used = self._used()
        return {key: list(used[key]) if type(used[key]) is tuple else used[key] for key in RECIPE if key in used}

    def seed_for(self, purpose: str, epoch: int = 0, step: int = 0) -> int:
        """A seed for one use of randomness, the same in all runs with this card's seed; epochs and steps count from 1.

        Deriving instead of storing keeps uses independent: evaluation cannot disturb training, and all networks of a
        seed see the images in the same order, which makes comparing them a paired comparison.
        31 bits, because PyTorch's CPU generator drops those above 32.
        """
        use = f"{self.seed}/{purpose}/{epoch}" + f"/{step}" * (step > 0)
        digest = hashlib.sha256(use.encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def identity(self, data: str, code: Mapping[str, str]) -> dict[str, Any]:
        """Everything that decides the run's result; its SHA-256 is the run's fingerprint.

        `data` is the data set's SHA-256, `code` the digest of each source file that decides results. The data set and
        device asked for are not part of it: `data` identifies the data, and checkpoints record each epoch's device.
        VALIDATION is: its files are CIFAR-10's.
        The number of epochs is not part of it if the learning rate does not depend on it: a longer run then begins with
        the shorter one, epoch for epoch.
        """
        card = self._used()
        del card["device"]
        if self.dataset != VALIDATION:
            del card["dataset"]
        if self.learning_rate_rule in RULES_OF_THE_EPOCH_ALONE:
            del card["epochs"]
        return {"schema": SCHEMA, "card": card, "data": data, "code": dict(code)}

    def write(self, path: Path) -> None:
        """Write the card as canonical JSON, with its own SHA-256."""
        used = self._used()
        write_whole(path, canonical_json(used | {CHECKSUM: _sha256(used)}))

    def _used(self) -> dict[str, Any]:
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def read(cls, path: Path) -> "RunCard":
        """Read a card. Raises BadInput that names the file and any wrong key."""
        content = read_json(path, CURE)
        if not isinstance(content, dict):
            raise BadInput(f"{path} is not a run card: {CURE}")
        checksum = content.pop(CHECKSUM, None)
        fields = typing.get_type_hints(cls)
        required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
        wrong = [key for key in content if key not in fields] + sorted(required - set(content))
        wrong += [key for key, kind in fields.items() if key in content and not _fits(content[key], kind)]
        if wrong:
            raise BadInput(f"{path}: {wrong[0]} is not valid in a run card; {CURE}")
        if checksum != _sha256(content):
            raise BadInput(f"{path} was damaged, or changed by hand: {CURE}")
        steps = content.get("learning_rate_steps")
        card = cls(**content | ({"learning_rate_steps": tuple(steps)} if steps is not None else {}))
        if path.stem != card.name:
            raise BadInput(f"{path} is the card of {card.name}: rename it, or rewrite it with `python -m stages.plan`")
        return card


def depth(block: str, blocks_per_stage: int) -> int:
    """Weight layers as the papers count them: 6n+2 (basic) or 9n+2 (bottleneck), without short connections."""
    return 3 * WEIGHT_LAYERS[block] * blocks_per_stage + 2


def is_wanted(dataset: str, wanted: str) -> bool:
    """Whether a run on `dataset` is what was asked for: "auto" may yield any data set but the validation set."""
    return dataset == wanted or (wanted == "auto" and dataset != VALIDATION)


def is_recipe(content: Any) -> bool:
    """Whether a JSON value has the keys and types of a card's recipe."""
    if not isinstance(content, dict):
        return False
    kinds = typing.get_type_hints(RunCard)
    always = [key for key in RECIPE if not isinstance(kinds[key], types.UnionType)]
    return set(always) <= set(content) <= set(RECIPE) and all(_fits(content[key], kinds[key]) for key in content)


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()


def _fits(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the type of a card's field; booleans are not numbers, 1 counts as a float."""
    if isinstance(kind, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(kind) if option is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(item, int) for item in value)
    if kind is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    return type(value) is kind
