"""The schema of benchmarks/records/<device>.json: one writer, one reader."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole

FOLDER = Path(__file__).with_name("records")
BYTES = {"float32": 4, "bfloat16": 2}  # of a number
# How often a training step passes a convolution's output over memory at the least, with everything between two
# convolutions fused into them: forward it is written and read; backward its gradient is written, read for the inputs'
# gradient, and read beside it for the weights'; and normalisation's backward pass sums over both before it can begin.
PASSES = 8


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median of several blocks, the least and the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(*(float(f"{each:.5g}") for each in (statistics.median(values), min(values), max(values))))


@dataclasses.dataclass(frozen=True)
class Work:
    """What a training step needs."""

    parameters: int
    flop_per_image: float  # forward and backward
    convolution_outputs_per_image: float  # elements

    def bytes_per_image(self, precision: str) -> float:
        """The fewest that a step could read and write."""
        return PASSES * self.convolution_outputs_per_image * BYTES[precision]


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What the whole device was measured to do at most."""

    flop_per_second: dict[str, float]  # in matrix products, by precision
    copied_bytes_per_second: float  # read and written

    def share(self, work: Work, precision: str, images_per_second: float) -> float:
        """How much of what the nearer of the two ceilings allows: the roofline."""
        return images_per_second * max(
            work.flop_per_image / self.flop_per_second[precision],
            work.bytes_per_image(precision) / self.copied_bytes_per_second,
        )


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """Of a race: without them a time is worth nothing. The load is the number of processes that wanted a core."""

    dataset: str
    commit: str
    python: str
    torch: str
    torchvision: str
    load_before: float
    load_after: float | None


@dataclasses.dataclass(frozen=True)
class Result:
    """How a contender did. Rates are those of all its trainings together."""

    contender: str
    precision: str
    processes: int
    threads: int  # of each process
    runs: int  # in each process
    steps_per_block: int
    images_per_second: Spread
    times_faster: dict[str, Spread]  # than the reference loops, block by block
    seconds_per_step: dict[str, float] | None  # of one training, by part; None where nothing can look into a step
    data_share: float | None  # of a step's time, with what begins an epoch
    evaluated_per_second: float  # images
    epoch_seconds: float  # until each of its trainings is an epoch further, evaluation included
    evaluation_share: float  # of that
    peak_bytes: int  # of all its processes: on a GPU what PyTorch holds there, else whole processes

    @property
    def side_by_side(self) -> int:
        return self.processes * self.runs


@dataclasses.dataclass(frozen=True)
class Race:
    """Contenders over one network, in turns."""

    network: str
    ordering: str
    work: Work
    circumstances: Circumstances
    results: tuple[Result, ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """All that was measured on a device. `scale` are races of the engine alone, over ever deeper networks."""

    device: str
    ceilings: Ceilings
    races: tuple[Race, ...]
    scale: tuple[Race, ...]

    def with_races(self, races: Sequence[Race], scale: Sequence[Race]) -> "Record":
        """With these besides, each in the place of an older one over the same network."""
        return dataclasses.replace(self, races=_updated(self.races, races), scale=_updated(self.scale, scale))

    def write(self, path: Path) -> None:
        write_whole(path, canonical_json(dataclasses.asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Raises BadInput if the file is not a record of this schema."""
        try:
            entry = read_json(path, "`make benchmark` makes another")
            return cls(
                entry.pop("device"),
                Ceilings(**entry.pop("ceilings")),
                *(tuple(_race(race) for race in entry.pop(key)) for key in ("races", "scale")),
                **entry,
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path} is not a benchmark's record ({error!r}): delete it and run `make benchmark`"
            ) from None


def _updated(old: Sequence[Race], new: Sequence[Race]) -> tuple[Race, ...]:
    return tuple({(race.network, race.ordering): race for race in (*old, *new)}.values())


def _race(entry: dict[str, Any]) -> Race:
    parts = {
        "work": Work(**entry["work"]),
        "circumstances": Circumstances(**entry["circumstances"]),
        "results": tuple(_result(result) for result in entry["results"]),
    }
    return Race(**(entry | parts))


def _result(entry: dict[str, Any]) -> Result:
    parts = {
        "images_per_second": Spread(**entry["images_per_second"]),
        "times_faster": {name: Spread(**spread) for name, spread in entry["times_faster"].items()},
    }
    return Result(**(entry | parts))
