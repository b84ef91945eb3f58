"""Do the engine's fast paths learn as well as plain PyTorch in float32? -> benchmarks/accuracy.json

Trains networks on each path from the same seeds: same initial weights and image order, different dropped values.
The record is written after every run, and runs already in it are not repeated.
Then `python -m benchmarks.table` puts the paired differences into docs/speed.md.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from benchmarks import machine
from benchmarks.contenders import BATCH_SIZE, DROPOUT_P, Network
from benchmarks.data import TEST_IMAGES, Source, source
from benchmarks.reference import plain
from benchmarks.stopwatch import wait_for_device
from benchmarks.trials import PATHS, RECORD, Trial, Trials
from lib import cifar10, training
from lib.batches import Batches, served
from lib.card import RunCard
from lib.checkpoint import Snapshot
from lib.errors import BadInput, StageError, errors_exit
from lib.machine.device import circumstances, make_deterministic, pick_device
from lib.machine.stopping import end_with_parent
from lib.runs import on_cores
from lib.turns import in_turns
from stages.train import model_of, recipe_of
from tools.options import count

NETWORKS = (Network("basic", 1, "conv_relu_ic"), Network("basic", 3, "conv_relu_ic"))  # 8 and 20 layers


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=count, default=5, help="trainings of each network by each path (default: 5)")
    parser.add_argument("--images", type=count, default=5000, help="to train on, and to test on (default: 5000)")
    parser.add_argument("--epochs", type=count, default=6, help="of each training (default: 6)")
    options = parser.parse_args()
    if options.images > TEST_IMAGES:
        parser.error(f"--images {options.images}: the test set has {TEST_IMAGES}")
    with errors_exit("benchmarks"), source(quick=False) as data:
        device = pick_device("auto")
        start = Trials(machine.device_name(device), machine.circumstances(data.dataset), options.images, options.epochs)
        compare(
            continued(start, RECORD),
            range(options.seeds),
            dataclasses.replace(data, train_images=start.images, test_images=start.images),
        )


def continued(start: Trials, path: Path) -> Trials:
    """The existing record of this comparison, else `start`. Raises BadInput if the record is, or may be, of another."""
    if not path.exists():
        return start
    if start.circumstances.commit.endswith("modified"):
        raise BadInput(f"{path} may be of other code, which has edits here: commit them, or move it away to begin anew")
    before = Trials.read(path)
    if before.comparable != start.comparable:
        raise BadInput(f"{path} is of {before.comparable}, asked for is {start.comparable}: move it away to begin anew")
    return before


def compare(record: Trials, seeds: Sequence[int], data: Source) -> None:
    """Train the runs that the record lacks, seed by seed, and write it after each."""
    done = {trial.key for trial in record.trials}
    wanted = [(network, path, seed) for seed in seeds for network in NETWORKS for path in PATHS]
    todo = [(network, path, seed) for network, path, seed in wanted if (network.name, path, seed) not in done]
    spawn = multiprocessing.get_context("spawn")
    at_once = 1 if torch.cuda.is_available() else on_cores()
    with concurrent.futures.ProcessPoolExecutor(at_once, spawn, _get_ready) as pool, _none_left_waiting(pool):
        running = [pool.submit(trained, *each, data, record.epochs) for each in todo]
        for future in concurrent.futures.as_completed(running):
            trial = future.result()
            record = dataclasses.replace(record, trials=(*record.trials, trial))
            record.write(RECORD)
            print(
                f"{len(record.trials)} of {len(wanted)}: {trial.network}, {trial.path}, seed {trial.seed}: "
                f"train loss {trial.train_loss[-1]:.4f}, test accuracy {trial.test_accuracy[-1]:.2%}",
                flush=True,
            )


def _get_ready() -> None:
    torch.set_num_threads(1)
    end_with_parent()


@contextlib.contextmanager
def _none_left_waiting(pool: concurrent.futures.Executor) -> Iterator[None]:
    """On an error or Ctrl-C, end the pool after the runs that it is training."""
    try:
        yield
    except BrokenProcessPool:
        raise StageError("a process that trains was killed (was memory short?); the same command goes on") from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def trained(network: Network, path: str, seed: int, data: Source, epochs: int) -> Trial:
    """Train one run in this process."""
    precision, by_plain_layers = PATHS[path]
    card = card_of(network, precision, seed, data, epochs)
    make_deterministic()
    device = pick_device("auto")
    train_set, test_set = _served(data, device)
    network_of_path = plain(model_of(card)) if by_plain_layers else model_of(card)
    model = network_of_path.to(device).to(memory_format=torch.channels_last)
    wait_for_device()  # the weights were laid out on this stream, and are trained on another
    snapshots = training.fit(
        model,
        recipe_of(card),
        lambda epoch: train_set.shuffled(card.seed_for("order", epoch), card.augmentation),
        test_set.in_order,
        lambda epoch, step: card.seed_for("dropout", epoch, step),
        Snapshot.of_start(None, circumstances(device)),
    )
    last = deque[Snapshot | None](maxlen=1)
    in_turns({network.name: map(last.append, snapshots)})  # on its own stream: otherwise no GPU captures a step
    assert last[0] is not None
    history = last[0].history
    return Trial(
        network.name,
        path,
        seed,
        tuple(each.train_loss for each in history),
        tuple(each.test_accuracy for each in history),
    )


def card_of(network: Network, precision: str, seed: int, data: Source, epochs: int) -> RunCard:
    """A card with the study's recipe, for a shorter run."""
    return RunCard(
        network=network.name,
        block=network.block,
        blocks_per_stage=network.blocks_per_stage,
        ordering=network.ordering,
        dropout_p=DROPOUT_P,
        seed=seed,
        dataset=data.dataset,
        train_images=data.train_images,
        test_images=data.test_images,
        augmentation="none",
        precision=precision,
        device="auto",
        epochs=epochs,
        batch_size=BATCH_SIZE,
        optimizer="adam",
        weight_decay=0.0,
        learning_rate=0.001,
        learning_rate_rule="constant",
    )


@functools.cache
def _served(data: Source, device: torch.device) -> tuple[Batches, Batches]:
    images = cifar10.load(data.folder, data.dataset, data.train_images, data.test_images)
    return served(images, BATCH_SIZE, device)


if __name__ == "__main__":
    main()
