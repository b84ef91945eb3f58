"""Measure the engine's training speed here against plain PyTorch -> benchmarks/records/<device>.json.

For each network the contenders take turns, block by block, each in its own processes; the record is written after every
network. Then `python -m benchmarks.table` puts the figures into README.md and docs/speed.md.
Run nothing else at the same time: the record includes the machine's load.
"""

import argparse
import concurrent.futures
import dataclasses
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool

import torch

from benchmarks import ceilings, machine, race
from benchmarks.contenders import DEPTHS, ORDERINGS, SIZES, Contender, Network, competitors, scaled
from benchmarks.data import source
from benchmarks.record import FOLDER, Ceilings, Race, Record
from benchmarks.table import tables
from lib.errors import StageError, errors_exit
from lib.machine.device import pick_device
from lib.words import counted
from tools.options import above_zero

SCALE_WEIGHT = 0.4  # time for a race of the scale curve, relative to any other
BUSY = 0.5  # the load average, before the benchmark starts, above which the machine is busy


@dataclasses.dataclass(frozen=True)
class Job:
    """A race to run."""

    network: Network
    contenders: list[Contender]
    is_scale: bool

    @property
    def weight(self) -> float:
        return SCALE_WEIGHT if self.is_scale else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=SIZES, default=list(SIZES), help="all, if left out")
    parser.add_argument(
        "--minutes",
        type=above_zero,
        default=18,
        help="about how long it may take (default: 18); a race under way is finished",
    )
    parser.add_argument("--quick", action="store_true", help="a trial on the smallest network; nothing is recorded")
    options = parser.parse_args()
    with errors_exit("benchmarks"):
        device = pick_device("auto")
        jobs = trial(device) if options.quick else study(options.networks, device)
        measure(jobs, device, minutes=0 if options.quick else options.minutes, quick=options.quick)


def study(networks: Sequence[str], device: torch.device) -> list[Job]:
    """Every network in two orderings, then the scale curve."""
    races = [Network(*SIZES[name], ordering) for name in networks for ordering in ORDERINGS]
    curve = [Network("basic", blocks, ORDERINGS[0]) for blocks in DEPTHS]
    return [Job(each, competitors(device), False) for each in races] + [
        Job(each, scaled(device), True) for each in curve
    ]


def trial(device: torch.device) -> list[Job]:
    network = Network("basic", 1, ORDERINGS[0])
    return [Job(network, competitors(device), False), Job(network, scaled(device), True)]


def measure(jobs: Sequence[Job], device: torch.device, *, minutes: float, quick: bool) -> None:
    """Run the races, each with its share of the remaining time, and record each as it finishes."""
    end = time.monotonic() + 60 * minutes
    if (load := machine.load()) > BUSY:
        print(f"benchmarks: busy here (load {load}): that slows loops of several threads most", file=sys.stderr)
    name = machine.device_name(device)
    path = FOLDER / f"{machine.slug(name)}.json"
    record = Record(name, elsewhere(functools.partial(ceilings.measured, device, quick)), (), ())
    if path.exists() and not quick:  # keep races over other networks, each with its commit and load
        record = record.added_to(Record.read(path))
    with source(quick) as images:
        for index, job in enumerate(jobs):
            left = end - time.monotonic()
            if index and left <= 0 and not quick:
                not_held = counted(len(jobs) - index, "race")
                print(f"benchmarks: the time is over, {not_held} not held: more --minutes for all", file=sys.stderr)
                break
            share = left * job.weight / sum(each.weight for each in jobs[index:])
            held = race.run(
                job.network,
                job.contenders,
                images,
                device,
                repeats=2 if quick else 5,
                seconds=share,
            )
            record = record.with_races([], [held]) if job.is_scale else record.with_races([held], [])
            if not quick:
                record.write(path)
            print(f"{held.network} {held.ordering}: {summary(held)}", flush=True)
    print(tables([record]))


def summary(held: Race) -> str:
    rates = (f"{each.contender} {each.images_per_second.median:,.0f}" for each in held.results)
    return "; ".join(rates) + " images per second"


def elsewhere(do: Callable[[], Ceilings]) -> Ceilings:
    """The result of `do` in a separate process, so that this one holds neither its memory nor a GPU."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(do).result()
        except BrokenProcessPool:
            raise StageError("the process that measures ceilings was killed (was memory short?)") from None


if __name__ == "__main__":
    main()
