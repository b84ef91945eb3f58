"""The schema of benchmarks/accuracy.json, and what its trainings come to when paths are compared."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from scipy import stats

from benchmarks.record import Circumstances
from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole

RECORD = Path(__file__).with_name("accuracy.json")
# By name: the precision, and whether layers are PyTorch's own. The first is what the others are compared with.
PATHS = {
    "nn.Dropout, float32": ("float32", True),
    "ours, float32": ("float32", False),
    "ours, bfloat16": ("bfloat16", False),
}
REFERENCE = next(iter(PATHS))


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training: which network, by which path, from which seed; and what each epoch came to."""

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
    """All trainings of a comparison, and what they were made of."""

    device: str
    circumstances: Circumstances
    images: int  # of the training set, and as many of the test set
    epochs: int
    trials: tuple[Trial, ...] = ()

    def write(self, path: Path) -> None:
        write_whole(path, canonical_json(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Trials":
        """Raises BadInput if the file is not such a record."""
        try:
            entry = read_json(path)
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
class Difference:
    """The mean of paired differences, and its 95 % t-interval."""

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How a network learned by a path, and how that differs from the reference path of the same seeds."""

    network: str
    path: str
    n: int
    accuracy: float  # mean over seeds, of the last epoch's on the test set
    deviation: float  # standard deviation over seeds
    accuracy_difference: Difference | None  # None: this is the reference
    loss_difference: Difference | None  # of the last epoch's training loss, in nats: less noisy than the accuracy


def comparisons(record: Trials) -> list[Comparison]:
    """A row for each network and path, over the seeds that all paths have finished; none for fewer than two."""
    networks = sorted({trial.network for trial in record.trials}, key=len)
    return [row for network in networks for row in _of_network(network, record.trials)]


def _of_network(network: str, trials: Sequence[Trial]) -> list[Comparison]:
    by_path = {path: {each.seed: each for each in trials if each.key[:2] == (network, path)} for path in PATHS}
    seeds = sorted(set.intersection(*(set(of) for of in by_path.values())))
    if len(seeds) < 2:
        return []
    accuracy = {path: [of[seed].test_accuracy[-1] for seed in seeds] for path, of in by_path.items()}
    loss = {path: [of[seed].train_loss[-1] for seed in seeds] for path, of in by_path.items()}
    return [
        Comparison(
            network,
            path,
            len(seeds),
            statistics.mean(accuracy[path]),
            statistics.stdev(accuracy[path]),
            None if path == REFERENCE else paired(accuracy[path], accuracy[REFERENCE]),
            None if path == REFERENCE else paired(loss[path], loss[REFERENCE]),
        )
        for path in PATHS
    ]


def paired(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Mean difference with the interval of the paired t-test."""
    test = stats.ttest_rel(ours, theirs)
    interval = test.confidence_interval(0.95)
    return Difference(statistics.mean(ours) - statistics.mean(theirs), float(interval.low), float(interval.high))
