"""The schema of metrics/<run>.json: one writer, one reader."""

import dataclasses
import math
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.card import RunCard, RunName, is_recipe, is_wanted
from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole


@dataclasses.dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch. Losses are mean cross-entropies in nats, accuracies fractions of 1."""

    epoch: int  # counted from 1
    learning_rate: float
    train_loss: float  # over the epoch's own steps, in train mode
    train_accuracy: float
    test_loss: float  # over the run's test images, in eval mode
    test_accuracy: float


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """What the run was: the facts without which a result is worth nothing."""

    network: str
    block: str
    depth: int  # layers counted as the paper counts them: 6n+2 or 9n+2
    ordering: str
    seed: int
    dataset: str  # what it was trained on, not what was asked for: never "auto"
    train_images: int
    test_images: int
    epochs: int  # requested
    recipe: dict[str, Any]  # how it was trained: as in a run card
    parameters: int
    torch: str
    device: str

    def as_planned(self, card: RunCard) -> bool:
        """Whether this is a card's run, as far as both have the same fields."""
        same = ("network", "block", "depth", "ordering", "seed", "epochs", "train_images", "test_images", "recipe")
        alike = all(getattr(self, key) == getattr(card, key) for key in same)
        return alike and is_wanted(self.dataset, card.dataset)


@dataclasses.dataclass(frozen=True)
class RunMetrics:
    """A run's facts and its history so far."""

    facts: RunFacts
    history: tuple[EpochRecord, ...]

    @property
    def name(self) -> str:
        return str(RunName(self.facts.network, self.facts.ordering, self.facts.seed))

    @property
    def finished(self) -> bool:
        return len(self.history) == self.facts.epochs

    @property
    def test_accuracy(self) -> float:
        """The last epoch's, as in the paper (Table 1: "at the end of training"); never the best."""
        return self.history[-1].test_accuracy


def write_metrics(path: Path, facts: RunFacts, history: Sequence[EpochRecord]) -> None:
    """Rewrite a run's metrics file atomically, so that `dvc plots show` works during the run.

    `dvc metrics show` prints every number and string in a mapping and skips lists: hence the two numbers are at the top
    level and the facts in a list of one.
    """
    content = {
        "test_accuracy": history[-1].test_accuracy,
        "test_loss": history[-1].test_loss,
        "run": [dataclasses.asdict(facts)],
        "history": [dataclasses.asdict(record) for record in history],
    }
    write_whole(path, canonical_json(content))


def read_metrics(path: Path) -> RunMetrics:
    """Read and check a metrics file. Raises BadInput that names the file and what is wrong with it."""
    content = read_json(path)
    try:
        (facts,) = content["run"]
        run = RunMetrics(_record(RunFacts, facts), tuple(_record(EpochRecord, each) for each in content["history"]))
        epochs = [record.epoch for record in run.history]
        if not epochs or epochs != list(range(1, len(epochs) + 1)) or len(epochs) > run.facts.epochs:
            raise ValueError(f"its history is of epochs {epochs[:3]}... of {run.facts.epochs}")
        for key in ("test_accuracy", "test_loss"):
            if type(content[key]) is bool or content[key] != getattr(run.history[-1], key):
                raise ValueError(f"{key} is not that of the last epoch")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{path} is not a run's metrics ({error}): delete it and run `dvc repro` again") from None
    if path.stem != run.name:
        raise BadInput(f"{path} holds the metrics of {run.name}: rename it, or delete it and run `dvc repro` again")
    return run


Record = typing.TypeVar("Record", EpochRecord, RunFacts)
KINDS = {kind: typing.get_type_hints(kind) for kind in (EpochRecord, RunFacts)}


def _record(kind: type[Record], content: Any) -> Record:
    """A dataclass from a JSON mapping. Raises TypeError or ValueError if they do not match."""
    record = kind(**content)
    for name, wanted in KINDS[kind].items():
        value = getattr(record, name)
        if name == "recipe":
            fits = is_recipe(value)
        else:
            fits = type(value) is wanted or (wanted is float and type(value) is int)
        if not fits:
            raise TypeError(f"{name} is {value!r}")
        if wanted is str and not (value and value.isprintable()):
            raise ValueError(f"{name} is {value!r}")
        if wanted in (int, float) and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}")
        if name.endswith("accuracy") and value > 1:
            raise ValueError(f"{name} is {value!r}, more than 1")
        if name == "block" and value not in ("basic", "bottleneck"):
            raise ValueError(f"block is {value!r}, neither basic nor bottleneck")
    return record
