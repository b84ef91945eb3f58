"""plan/<run>.json + data/cifar10/ -> metrics/<run>.json, models/<run>.pt. Needs no DVC.

A run that was stopped goes on from its last whole epoch, kept in checkpoints/; one that is finished there is collected
in seconds. Exit status: 0 all written, 2 bad input, 75 try again (busy), 130 or 143 stopped by a signal.
"""

import argparse
import dataclasses
import io
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from lib import cifar10, source, training
from lib.card import RunCard, place_in_study
from lib.checkpoint import Checkpoints, Snapshot
from lib.device import circumstances, failures_explained, make_deterministic, pick_device
from lib.errors import errors_exit
from lib.files import require_room, require_writable, write_whole
from lib.metrics import RunFacts, write_metrics
from lib.progress import Progress
from lib.resnet import ResNet, depth
from lib.stopping import Stop

ROOT = Path(__file__).parents[1]
DECIDES_RESULTS = (  # a checkpoint made by other code than this is another run's
    "lib/card.py",
    "lib/cifar10.py",
    "lib/device.py",
    "lib/ic.py",
    "lib/resnet.py",
    "lib/training.py",
    "stages/train.py",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("card", type=Path, help="a run card, as `python -m stages.plan` writes them")
    path = parser.parse_args().card
    stop = Stop()
    with errors_exit("train"):
        stop.listen()
        card = RunCard.read(path)
        with failures_explained(card.batch_size):
            train(card, *place_in_study(path), stop)


def train(card: RunCard, place: int, study: list[RunCard], stop: Stop) -> None:
    """Train a card's run, or what is left of it; the rest of its study matters to the display of progress alone."""
    data = cifar10.load(Path("data/cifar10"), card.dataset, card.train_images, card.test_images)
    torch.manual_seed(card.seed_for("initial weights"))
    model = ResNet(card.block, card.blocks_per_stage, card.ordering, dropout_p=card.dropout_p or 0.0)
    progress = progress_of(card, place, study, data)

    # DVC_ROOT: an experiment in a temporary folder keeps its checkpoints where the next one finds them.
    root = Path(os.environ.get("DVC_ROOT", "."), "checkpoints")
    code = {name: source.digest(ROOT / name) for name in DECIDES_RESULTS}
    checkpoints = Checkpoints(root, card.name, card.identity(data.sha256, code))
    metrics, weights = Path("metrics", f"{card.name}.json"), Path("models", f"{card.name}.pt")
    with checkpoints.held():
        require_writable(metrics, weights)
        snapshot = done = checkpoints.newest(card.epochs)
        if done:
            progress.resumed(done.history, checkpoints.folder)
            write_metrics(metrics, facts_of(card, data, model, done), done.history)
        if done is None or done.epoch < card.epochs:
            require_room_to_train(model, checkpoints, weights)
            for snapshot in epochs(card, data, model, done, progress, stop):
                checkpoints.save(snapshot)
                write_metrics(metrics, facts_of(card, data, model, snapshot), snapshot.history)
                progress.epoch(snapshot.history[-1])
        assert snapshot is not None  # a card asks for an epoch at least
        content = io.BytesIO()  # torch.save to a path would write the file's name into the file
        torch.save(snapshot.model, content)
        write_whole(weights, content.getvalue())


def epochs(
    card: RunCard, data: cifar10.DataSet, model: ResNet, done: Snapshot | None, progress: Progress, stop: Stop
) -> Iterator[Snapshot]:
    """A snapshot after each epoch that is not done yet, trained on the card's device."""
    device = pick_device(card.device)
    make_deterministic(done.circumstances[-1] if done else None)
    start = Snapshot.of_start(done, circumstances(device))
    statistics = cifar10.channel_statistics(data.train.images)
    train_set = cifar10.Batches(data.train, statistics, card.batch_size, device)
    test_set = cifar10.Batches(data.test, statistics, card.batch_size, device)
    model.to(device).to(memory_format=torch.channels_last)  # the layout of the batches
    recipe = training.Recipe(**{field.name: getattr(card, field.name) for field in dataclasses.fields(training.Recipe)})
    if device.type == "cpu":
        step = training.seconds_per_step(model, recipe, next(train_set.in_order()))
        progress.warn_if_slow(step, (card.epochs - start.epoch) * len(train_set) // card.batch_size)

    def train_batches(epoch: int) -> Iterator[training.Batch]:
        batches = train_set.shuffled(card.seed_for("order", epoch), card.augmentation)
        return progress.batches(epoch, stop.at_steps(batches))

    return training.fit(
        model,
        recipe,
        train_batches,
        lambda: stop.at_steps(test_set.in_order()),
        lambda epoch: card.seed_for("dropout", epoch),
        start,
    )


def require_room_to_train(model: ResNet, checkpoints: Checkpoints, weights: Path) -> None:
    """Raise BadInput unless the disk has room for what the run will write."""
    size = sum(each.nbytes for each in model.state_dict().values())
    require_room(weights.parent, size)
    checkpoints.require_room(3 * size + 1_000_000)  # the weights, Adam's two moments of each, and the history


def progress_of(card: RunCard, place: int, study: list[RunCard], data: cifar10.DataSet) -> Progress:
    """The display of a run that is the so-manieth of its study; a run's time goes about with its depth."""
    layers = [depth(each.block, each.blocks_per_stage) for each in study]
    title = f"run {place} of {len(study)}  {card.name} ({layers[place - 1]} layers, {data.name})"
    later_work = sum(layers[place:]) / layers[place - 1]
    return Progress(title, card.epochs, len(data.train.labels), later_work, len(study) - place)


def facts_of(card: RunCard, data: cifar10.DataSet, model: ResNet, snapshot: Snapshot) -> RunFacts:
    """The circumstances of a run's result: where it was trained, which may not be here."""
    return RunFacts(
        network=card.network,
        block=card.block,
        depth=depth(card.block, card.blocks_per_stage),
        ordering=card.ordering,
        seed=card.seed,
        dataset=data.name,
        epochs=card.epochs,
        parameters=sum(each.numel() for each in model.parameters()),
        torch=" then ".join(dict.fromkeys(each.torch for each in snapshot.circumstances)),
        device=" then ".join(dict.fromkeys(each.device for each in snapshot.circumstances)),
    )


if __name__ == "__main__":
    main()
