"""What is in the project, read once for all of the doctor's checks: cards, data, checkpoints."""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lib import cifar10
from lib.card import RunCard
from lib.cards import run_names
from lib.checkpoint import Checkpoints, read_checkpoint
from lib.errors import BadInput
from lib.lock import holder
from stages import train

PLAN, DATA, METRICS, MODELS = Path("plan"), Path("data/cifar10"), Path("metrics"), Path("models")
FOLDER = re.compile(r"(.+)-[0-9a-f]{16}")  # a run's checkpoint folder, as lib.checkpoint names it

Result = TypeVar("Result")


def attempt(function: Callable[..., Result], *arguments: object) -> Result | str:
    """What a function returns, or the message of the BadInput it raises."""
    try:
        return function(*arguments)
    except BadInput as error:
        return str(error)


@dataclasses.dataclass(frozen=True)
class Kept:
    """A checkpoint folder as found on disk."""

    folder: Path
    of_plan: bool  # whether a card of the plan, with this data and code, resumes from it
    sound: tuple[int, ...]  # epochs whose checkpoint is readable
    spoilt: tuple[Path, ...]  # checkpoints that are not
    litter: tuple[Path, ...]  # files set aside as damaged, or left half-written
    holder: str | None  # the process that is training into it
    size: int

    @classmethod
    def of(cls, folder: Path, checkpoints: Checkpoints | None) -> "Kept":
        held = holder(folder)
        sound, spoilt = [], []
        for path in sorted(folder.glob("epoch-*.ckpt")):
            snapshot = attempt(read_checkpoint, path, checkpoints.fingerprint if checkpoints else None)
            if not isinstance(snapshot, str):
                sound.append(snapshot.epoch)
            elif path.exists():  # else training has meanwhile deleted it, as it does old ones
                spoilt.append(path)
        litter = [*folder.glob("*.damaged"), *(() if held else folder.glob(".*.tmp"))]
        size = 0
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                size += path.stat().st_size
        return cls(folder, checkpoints is not None, tuple(sound), tuple(spoilt), tuple(litter), held, size)

    @property
    def run(self) -> str:
        return self.folder.name.rpartition("-")[0]

    def newest(self, epochs: int = 10**9) -> int:
        """The last sound epoch up to `epochs`; 0 if there is none."""
        return max((epoch for epoch in self.sound if epoch <= epochs), default=0)


class Project:
    """What several checks need, read once."""

    @functools.cached_property
    def runs(self) -> dict[str, RunCard | str]:
        """The plan's runs by name, in its order: each run's card, or what is wrong with it."""
        try:
            names = run_names(PLAN)
        except BadInput:  # training works without study.json too
            names = sorted(path.stem for path in PLAN.glob("*.json") if path.name != "study.json")
        return {name: attempt(RunCard.read, PLAN / f"{name}.json") for name in names}

    @property
    def cards(self) -> dict[str, RunCard]:
        return {name: card for name, card in self.runs.items() if isinstance(card, RunCard)}

    @functools.cached_property
    def data(self) -> cifar10.DataSet | str:
        """The data as the first run's training loads it, or why it would refuse it."""
        for card in self.cards.values():
            return attempt(cifar10.load, DATA, card.dataset, card.train_images, card.test_images)
        return attempt(cifar10.load, DATA, "auto", 1, 1)

    @property
    def root(self) -> Path:
        return train.checkpoint_root()

    @functools.cached_property
    def checkpoints(self) -> dict[str, Checkpoints]:
        """Where each run keeps its checkpoints for this data and code, as in stages/train.py."""
        if isinstance(self.data, str):
            return {}
        return {name: train.checkpoints_of(card, self.data.sha256) for name, card in self.cards.items()}

    @functools.cached_property
    def kept(self) -> list[Kept]:
        ours = {each.folder: each for each in self.checkpoints.values()}
        found = sorted(path for path in self.root.glob("*-*") if path.is_dir() and FOLDER.fullmatch(path.name))
        return [Kept.of(folder, ours.get(folder)) for folder in found]

    def done(self, name: str) -> int:
        """How many epochs of a run need no more training."""
        return max(
            (each.newest(self.cards[name].epochs) for each in self.kept if each.of_plan and each.run == name), default=0
        )


def size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"
