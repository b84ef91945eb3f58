"""The schema of benchmarks/accuracy.json, and the comparison of paths over its runs."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import Circumstances
from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole
from lib.stats.paired import Comparison, compare
from lib.stats.sample import Sample

RECORD = Path(__file__).with_name("accuracy.json")
# By name: the precision, and whether layers are PyTorch's own. The others are compared with the first.
PATHS = {
    "nn.Dropout, float32": ("float32", True),
    "ours, float32": ("float32", False),
    "ours, bfloat16": ("bfloat16", False),
}
REFERENCE = next(iter(PATHS))


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run: its network, path and seed, and the results of each epoch."""

    network: str
    path: str
    seed: int
    train_loss: tuple[float, ...] = ()
    test_accuracy: tuple[float, ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        return self.network, self.path, self.seed


@dataclasses.dataclass(frozen=True)
class Trials:
    """All runs of a comparison, and the conditions they were made under."""

    device: str
    circumstances: Circumstances
    images: int  # of the training set, and as many of the test set
    epochs: int
    trials: tuple[Trial, ...] = ()

    @property
    def comparable(self) -> str:
        """What all its runs have in common: others could not be paired with them."""
        made = self.circumstances
        return (
            f"{self.epochs} epochs of {self.images} {made.dataset} images on {self.device}, PyTorch {made.torch}, "
            f"commit {made.commit}"
        )

    def write(self, path: Path) -> None:
        write_whole(path, canonical_json(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Trials":
        """Raises BadInput if the file is not such a record."""
        try:
            entry = read_json(path, "`python -m benchmarks.accuracy` makes another")
            trials = tuple(
                Trial(**each | {key: tuple(each[key]) for key in ("train_loss", "test_accuracy")})
                for each in entry.pop("trials")
            )
            return cls(circumstances=Circumstances(**entry.pop("circumstances")), trials=trials, **entry)
        except (AttributeError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is no record of accuracies ({error!r}): delete it and run `python -m benchmarks.accuracy`"
            ) from None


@dataclasses.dataclass(frozen=True)
class Learned:
    """How a network learned on a path, and the difference from the reference path over the same seeds."""

    network: str
    path: str
    accuracy: Sample  # the last epoch's on the test set, over seeds
    accuracy_difference: Comparison | None  # None: this is the reference
    loss_difference: Comparison | None  # of the last epoch's training loss, in nats: less noisy than the accuracy


def comparisons(record: Trials) -> list[Learned]:
    """A row per network and path, over the seeds that all paths have finished; none where there are no such seeds."""
    networks = sorted({trial.network for trial in record.trials}, key=lambda name: (len(name), name))
    return [row for network in networks for row in _of_network(network, record.trials)]


def _of_network(network: str, trials: Sequence[Trial]) -> list[Learned]:
    by_path = {path: {each.seed: each for each in trials if each.key[:2] == (network, path)} for path in PATHS}
    seeds = sorted(set.intersection(*(set(of) for of in by_path.values())))
    accuracy = {path: {seed: of[seed].test_accuracy[-1] for seed in seeds} for path, of in by_path.items()}
    loss = {path: {seed: of[seed].train_loss[-1] for seed in seeds} for path, of in by_path.items()}
    return [
        Learned(
            network,
            path,
            Sample(tuple(accuracy[path].values())),
            None if path == REFERENCE else compare(accuracy[path], accuracy[REFERENCE]),
            None if path == REFERENCE else compare(loss[path], loss[REFERENCE], higher_is_better=False),
        )
        for path in PATHS
        if seeds
    ]
