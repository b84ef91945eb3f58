"""How long a study of many seeds would take on given numbers of GPUs, and what passes through the fleet's driver.

A calculation that divides the work as the fleet does. Checkpoint sizes are those of the networks, and the driver's time
per checkpoint is measured here, now: with many GPUs the study waits for it. Seconds per epoch are an H200's, measured
with four ResNet-110 side by side; other networks are assumed to take time in proportion to their layers.
"""

import argparse
import dataclasses
import heapq
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from lib import training
from lib.card import RunCard
from lib.checkpoint import Checkpoints, Snapshot
from lib.cifar10 import OFFICIAL_FILES
from lib.errors import errors_exit
from lib.fleet.members import Member, jobs_for
from lib.fleet.worker import Came
from lib.machine.device import Circumstances
from lib.metrics import EpochRecord
from lib.plan import read_study
from lib.progress import duration
from stages.train import model_of, recipe_of
from tools.options import above_zero, count

DATA_BYTES = sum(size for size, _ in OFFICIAL_FILES.values())
GPUS_ON_A_NODE = 8


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fleet_estimate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=count, default=10, help="of each run of params.yaml (default: 10)")
    parser.add_argument("--gpus", type=count, nargs="+", default=[1, 8, 64], help="how many (default: 1 8 64)")
    parser.add_argument(
        "--epoch-seconds", type=above_zero, default=2.2, help="of a GPU, for a 110-layer run's epoch (default: 2.2)"
    )
    options = parser.parse_args()
    with errors_exit("fleet_estimate"):
        cards = read_study(Path("params.yaml")).model_copy(update={"seeds": [0]}).cards()
        estimate(cards, options.seeds, options.gpus, options.epoch_seconds)


def estimate(cards: Sequence[RunCard], seeds: int, counts: Sequence[int], epoch_seconds: float) -> None:
    """Print what that many seeds of these cards take, a line per number of GPUs. Raises BadInput on a full disk."""
    members = [_member(dataclasses.replace(card, seed=seed, device="auto")) for card in cards for seed in range(seeds)]
    per_layer = epoch_seconds / 110
    sizes, costs = zip(*(driver_cost(card) for card in cards), strict=True)
    checkpoints = sum(member.card.epochs for member in members)
    home = sum(card.epochs * size for card, size in zip(cards, sizes, strict=True)) * seeds
    cost = sum(costs) / len(costs)
    print(f"{len(members)} runs, {checkpoints:,} epochs. Checkpoints: {min(sizes):,} to {max(sizes):,} bytes;")
    print(f"one takes the driver {cost * 1e3:.0f} ms here (verify, write, sync; mean of {len(cards)} runs)\n")
    print("| GPUs | tasks | time | checkpoints home | data to nodes | driver: MB/s | checkpoints/s | busy |")
    print("|-----:|------:|-----:|-----------------:|--------------:|-------------:|--------------:|-----:|")
    for gpus in counts:
        jobs = jobs_for(members, gpus)
        training_seconds = makespan([sum(each.work_left for each in job.members) * per_layer for job in jobs], gpus)
        seconds = max(training_seconds, checkpoints * cost)
        nodes = -(-gpus // GPUS_ON_A_NODE)
        print(
            f"| {gpus} | {len(jobs)} | {duration(seconds)} | {home / 1e9:.0f} GB | {nodes * DATA_BYTES / 1e9:.1f} GB "
            f"| {home / seconds / 1e6:.2f} | {checkpoints / seconds:.2f} | {checkpoints * cost / seconds:.1%} |"
        )


def _member(card: RunCard, root: Path = Path("nowhere")) -> Member:
    return Member(card, Checkpoints(root, card.name, card.identity("", {})), b"")


def makespan(tasks: Sequence[float], gpus: int) -> float:
    """When the last task ends, if each starts, in this order, as soon as a GPU is free."""
    free = [0.0] * gpus
    for seconds in tasks:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def driver_cost(card: RunCard) -> tuple[int, float]:
    """A checkpoint's size in bytes at the end of a run, and the seconds the driver takes to verify and store it."""
    model = model_of(card)
    snapshot = last_snapshot(card, model)
    with tempfile.TemporaryDirectory() as folder:
        there, here = (Checkpoints(Path(folder, name), card.name, card.identity("", {})) for name in ("there", "here"))
        there.folder.mkdir(parents=True)
        there.save(snapshot)
        member = _member(card, Path(folder, "here"))
        here.folder.mkdir(parents=True)
        path = there.path(card.epochs)
        came = Came(card.name, path.name, path.read_bytes())
        times = []
        for _ in range(3):
            start = time.perf_counter()
            member.keep(came)
            times.append(time.perf_counter() - start)
        return len(came.content), min(times)


def last_snapshot(card: RunCard, model: nn.Module) -> Snapshot:
    """Of a run of that card: its sizes are right, its values are not."""
    optimizer = training.make_optimizer(recipe_of(card), model)
    for each in model.parameters():
        each.grad = each.detach().clone()
    optimizer.step()
    record = EpochRecord(1, card.learning_rate, 1.234567890123456, 0.5123456, 1.234567890123456, 0.5123)
    history = tuple(dataclasses.replace(record, epoch=epoch) for epoch in range(1, card.epochs + 1))
    state = training.on_cpu(optimizer.state_dict()["state"])
    return Snapshot(history, dict(model.state_dict()), state, (Circumstances("2.14.1+cu130", "NVIDIA H100 80GB HBM3"),))


if __name__ == "__main__":
    main()
