"""A race: contenders take turns on one machine, block by block, so that its fluctuations affect all alike."""

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch

from benchmarks import machine
from benchmarks.ceilings import work
from benchmarks.contenders import BATCH_SIZE, Contender, Network
from benchmarks.data import TEST_IMAGES, TRAIN_IMAGES, Source
from benchmarks.record import Race, Result, Spread
from benchmarks.stopwatch import PARTS
from benchmarks.worker import Block, Team
from lib.errors import StageError

LEAST_REPEATS = 3  # however long they take
LEAST_SECONDS = 1.0  # of a block: a shorter one mostly measures its own start
STEPS_PER_EPOCH = -(-TRAIN_IMAGES // BATCH_SIZE)


class Entrant:
    """A contender in a race, and its measurements."""

    def __init__(self, team: Team) -> None:
        self.team, self.contender = team, team.contender
        self.steps = 1  # per block
        self.rates: list[float] = []  # images per second, per block
        self.watched: list[Block] = []
        self.evaluated = 0.0  # images per second

    def get_ready(self) -> None:
        """Wait until every process has its network and its data."""
        self.threads: int = self.team.ask("threads")[0]

    def warm_up(self) -> None:
        """Take the first steps, and time the one after them.

        A step that is being captured must not synchronize with the device, as a watched one does.
        """
        first = self.team.ask("train", 2, not self.contender.captured)
        self.epoch_start = max((block.parts["data"][0] for block in first if block.parts), default=0.0)
        self.step_seconds = max(block.seconds for block in self.team.ask("train", 1, False))

    def set_block(self, seconds: float) -> None:
        """Size a block to take about that many seconds."""
        self.steps = max(1, round(seconds / self.step_seconds))

    def block(self, watched: bool) -> None:
        blocks = self.team.ask("train", self.steps, watched)
        self.rates.append(rate(blocks))
        if watched:
            self.watched += blocks

    def look_inside(self) -> None:
        """Watch a block whose rate does not count: on a GPU, watching slows a step down."""
        self.watched += self.team.ask("train", min(self.steps, 20), True)

    def evaluate(self) -> None:
        self.team.ask("evaluate", 1)
        self.evaluated = rate(self.team.ask("evaluate", 2 * self.steps + 2))


def rate(blocks: Sequence[Block]) -> float:
    """Combined images per second of processes that worked at the same time."""
    return sum(block.images / block.seconds for block in blocks)


def run(
    network: Network,
    contenders: Sequence[Contender],
    source: Source,
    device: torch.device,
    *,
    repeats: int,
    seconds: float,
) -> Race:
    """Run a race of up to `repeats` blocks of each contender, in about `seconds`.

    Contenders that fail are named and left out.
    """
    on_cpu = device.type == "cpu"

    def finish(entrant: Entrant) -> None:
        if not on_cpu and not entrant.contender.captured:
            entrant.look_inside()
        entrant.evaluate()

    end = time.monotonic() + seconds
    before = machine.circumstances(source.dataset)
    with contextlib.ExitStack() as stack:
        entrants = [Entrant(Team(contender, network, source, device, stack)) for contender in contenders]
        entrants = able(able(entrants, Entrant.get_ready), Entrant.warm_up)
        left = end - time.monotonic()  # after start-up and, on a GPU, compiling; evaluation is a block
        block_seconds = seconds_of_a_block(left, seconds, blocks=(repeats + 1) * len(entrants))
        for entrant in entrants:
            entrant.set_block(block_seconds)
        for repeat in range(repeats):
            if repeat >= LEAST_REPEATS and time.monotonic() > end:
                break
            way = -1 if repeat % 2 else 1  # there and back, so that drift favours none
            entrants = able(entrants[::way], lambda entrant: entrant.block(watched=on_cpu))[::way]
        entrants = able(entrants, finish)
        results = tuple(result(entrant, entrants[:place]) for place, entrant in enumerate(entrants))
    circumstances = dataclasses.replace(before, load_after=machine.load())
    return Race(network.name, network.ordering, work(network), circumstances, results)


def seconds_of_a_block(left: float, of: float, blocks: int) -> float:
    """An equal share of the seconds a race has left, but at least LEAST_SECONDS, or all its seconds if it has fewer."""
    return max(left / blocks, min(LEAST_SECONDS, of))


def able(entrants: Sequence[Entrant], do: Callable[[Entrant], None]) -> list[Entrant]:
    """Those that manage `do`. Others are named and left out: on a GPU one may find no memory, or fail to capture."""
    found = []
    for entrant in entrants:
        try:
            do(entrant)
            found.append(entrant)
        except StageError as error:
            print(f"benchmarks: {error}; the others go on", file=sys.stderr, flush=True)
    if not found:
        raise StageError("no contender could train here")
    return found


def result(entrant: Entrant, before: Sequence[Entrant]) -> Result:
    """The result of an entrant's measurements, compared with the reference loops before it."""
    contender = entrant.contender
    images_per_second = Spread.of(entrant.rates)
    references = [other for other in before if other.contender.loop != "engine"]
    epoch = TRAIN_IMAGES * contender.side_by_side / images_per_second.median
    evaluation = TEST_IMAGES * contender.side_by_side / entrant.evaluated
    parts = parts_of_a_step(entrant.watched)
    data = parts["data"] + entrant.epoch_start / STEPS_PER_EPOCH if parts else None
    return Result(
        contender=contender.name,
        precision=contender.precision,
        processes=contender.processes,
        threads=entrant.threads,
        runs=contender.runs,
        steps_per_block=entrant.steps,
        images_per_second=images_per_second,
        times_faster={other.contender.name: Spread.of(ratios(entrant.rates, other.rates)) for other in references},
        seconds_per_step={part: round(seconds, 6) for part, seconds in parts.items()} if parts else None,
        data_share=round(data / sum(parts.values()), 5) if parts and data is not None else None,
        evaluated_per_second=round(entrant.evaluated, 2),
        epoch_seconds=round(epoch + evaluation, 2),
        evaluation_share=round(evaluation / (epoch + evaluation), 5),
        peak_bytes=sum(entrant.team.ask("peak_bytes")),
    )


def ratios(rates: Sequence[float], others: Sequence[float]) -> list[float]:
    """Block by block: each to the other's block of the same repeat."""
    return [ours / theirs for ours, theirs in zip(rates, others, strict=True)]


def parts_of_a_step(watched: Sequence[Block]) -> dict[str, float]:
    """Median seconds of each part of one run's step; "other" is the rest of the blocks' time."""
    if not watched:
        return {}
    times = {part: [seconds for block in watched for seconds in block.parts[part]] for part in PARTS}
    parts = {part: statistics.median(each) for part, each in times.items()}
    whole = statistics.median(block.seconds / len(block.parts["forward"]) for block in watched)
    return parts | {"other": max(0.0, whole - sum(parts.values()))}
