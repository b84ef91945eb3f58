"""The schema of benchmarks/records/<device>.json, with its only writer and its only reader."""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole

FOLDER = Path(__file__).with_name("records")
BYTES = {"float32": 4, "bfloat16": 2}  # per number
# How often, at least, a training step moves a convolution's output through memory, with everything between two
# convolutions fused into them. Forward it is written and read; backward its gradient is written, read for the inputs'
# gradient, and read together with the output for the weights'; and normalisation's backward pass first sums over both.
PASSES = 8


@dataclasses.dataclass(frozen=True)
class Spread:
    """The median, minimum and maximum of several blocks."""

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
        """The fewest bytes that a step could read and write."""
        return PASSES * self.convolution_outputs_per_image * BYTES[precision]


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """The most that the whole device was measured to do."""

    flop_per_second: dict[str, float]  # in matrix products, by precision
    copied_bytes_per_second: float  # read and written

    def share(self, work: Work, precision: str, images_per_second: float) -> float:
        """The fraction of the rate that the lower of the two ceilings allows: the roofline."""
        return images_per_second * max(
            work.flop_per_image / self.flop_per_second[precision],
            work.bytes_per_image(precision) / self.copied_bytes_per_second,
        )

    def highest(self, other: "Ceilings") -> "Ceilings":
        """The higher of each: a ceiling is what is possible."""
        both = self.flop_per_second, other.flop_per_second
        rates = {name: max(each.get(name, 0.0) for each in both) for name in both[0] | both[1]}
        return Ceilings(rates, max(self.copied_bytes_per_second, other.copied_bytes_per_second))


@dataclasses.dataclass(frozen=True)
class Circumstances:
    """Of a race: without them a time is worth nothing. Loads are the machine's one-minute load average."""

    dataset: str
    commit: str
    python: str
    torch: str
    torchvision: str
    load_before: float
    load_after: float | None


@dataclasses.dataclass(frozen=True)
class Result:
    """How a contender did. Rates are those of all its runs together."""

    contender: str
    precision: str
    processes: int
    threads: int  # per process
    runs: int  # per process
    steps_per_block: int
    images_per_second: Spread
    times_faster: dict[str, Spread]  # than the reference loops, block by block
    seconds_per_step: dict[str, float] | None  # of one run, by part; None where a step cannot be watched
    data_share: float | None  # of a step's time, including an epoch's start
    evaluated_per_second: float  # images
    epoch_seconds: float  # for each of its runs to advance one epoch, evaluation included
    evaluation_share: float  # of that
    peak_bytes: int  # of all its processes: on a GPU what PyTorch reserves there, else whole processes

    @property
    def side_by_side(self) -> int:
        return self.processes * self.runs


@dataclasses.dataclass(frozen=True)
class Race:
    """Contenders that took turns on one network."""

    network: str
    ordering: str
    work: Work
    circumstances: Circumstances
    results: tuple[Result, ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """All that was measured on a device. `scale` is races of the engine alone, over increasingly deep networks."""

    device: str
    ceilings: Ceilings
    races: tuple[Race, ...]
    scale: tuple[Race, ...]

    def with_races(self, races: Sequence[Race], scale: Sequence[Race]) -> "Record":
        """With these added, each replacing an older one over the same network and ordering."""
        return dataclasses.replace(self, races=_updated(self.races, races), scale=_updated(self.scale, scale))

    def added_to(self, older: "Record") -> "Record":
        """With an older record's races over other networks, and the higher of the ceilings for all."""
        together = older.with_races(self.races, self.scale)
        return dataclasses.replace(together, ceilings=self.ceilings.highest(older.ceilings))

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
