"""plan/<run>.json + data/cifar10/ -> metrics/<run>.json, models/<run>.pt. Needs no DVC."""

import argparse
import dataclasses
import io
from pathlib import Path

import torch

from lib import cifar10, training
from lib.card import RunCard, place_in_study
from lib.errors import bad_input_exits
from lib.files import write_whole
from lib.metrics import EpochRecord, RunFacts, write_metrics
from lib.progress import Progress, warn_if_slow
from lib.resnet import ResNet, depth


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__)
    parser.add_argument("card", type=Path, help="a run card, as `python -m stages.plan` writes them")
    path = parser.parse_args().card
    with bad_input_exits("train"):
        train(RunCard.read(path), *place_in_study(path))


def train(card: RunCard, place: int, study: list[RunCard]) -> None:
    """Train a card's run; the rest of its study matters to the display of progress alone."""
    device = training.pick_device(card.device)
    training.make_deterministic()
    data = cifar10.load(Path("data/cifar10"), card.dataset, card.train_images, card.test_images)
    statistics = cifar10.channel_statistics(data.train.images)
    train_set = cifar10.Batches(data.train, statistics, card.batch_size, device)
    test_set = cifar10.Batches(data.test, statistics, card.batch_size, device)

    torch.manual_seed(card.seed_for("initial weights"))
    model = ResNet(card.block, card.blocks_per_stage, card.ordering, dropout_p=card.dropout_p or 0.0)
    model = model.to(device).to(memory_format=torch.channels_last)  # the layout of the batches
    recipe = training.Recipe(**{field.name: getattr(card, field.name) for field in dataclasses.fields(training.Recipe)})
    facts = describe(card, model, data.name, device)

    layers = [depth(each.block, each.blocks_per_stage) for each in study]  # a run's time goes about with its depth
    later_work = sum(layers[place:]) / facts.depth
    title = f"run {place} of {len(study)}  {card.name} ({facts.depth} layers, {data.name})"
    progress = Progress(title, card.epochs, len(train_set), later_work, len(study) - place)
    if device.type == "cpu":
        step = training.seconds_per_step(model, recipe, next(train_set.in_order()))
        warn_if_slow(step, card.epochs * len(train_set) // card.batch_size, later_work)

    history: list[EpochRecord] = []
    for record in training.fit(
        model,
        recipe,
        lambda epoch: progress.batches(epoch, train_set.shuffled(card.seed_for("order", epoch), card.augmentation)),
        test_set.in_order,
        lambda epoch: card.seed_for("dropout", epoch),
    ):
        history.append(record)
        write_metrics(Path("metrics", f"{card.name}.json"), facts, history)
        progress.epoch(record)

    weights = io.BytesIO()  # torch.save to a path would write the file's name into the file
    torch.save(model.state_dict(), weights)
    write_whole(Path("models", f"{card.name}.pt"), weights.getvalue())


def describe(card: RunCard, model: ResNet, dataset: str, device: torch.device) -> RunFacts:
    """The circumstances of a run's result."""
    return RunFacts(
        network=card.network,
        block=card.block,
        depth=depth(card.block, card.blocks_per_stage),
        ordering=card.ordering,
        seed=card.seed,
        dataset=dataset,
        epochs=card.epochs,
        parameters=sum(each.numel() for each in model.parameters()),
        torch=torch.__version__,
        device=device.type if device.type == "cpu" else torch.cuda.get_device_name(device),
    )


if __name__ == "__main__":
    main()
