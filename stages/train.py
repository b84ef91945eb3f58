"""plan/<run>.json + data/cifar10/ -> metrics/<run>.json, models/<run>.pt. Needs no DVC.

A stopped run goes on after its last whole epoch, kept in checkpoints/; one that is finished there is not trained again:
its results are written in seconds. Several cards are trained in turns, a step each, with the same results to the bit as
one by one: for a GPU, which one such run cannot fill. On a CPU, python -m tools.study trains several at once.
Exit status: 0 all written, 2 bad input, 75 try again (busy), 130 or 143 stopped by a signal.
"""

import argparse
import dataclasses
import functools
import io
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from lib import cifar10, source, training
from lib.batches import served
from lib.card import RunCard
from lib.cards import read_with_study
from lib.checkpoint import Checkpoints, Snapshot
from lib.errors import BadInput, errors_exit
from lib.files import require_room, require_writable, write_whole
from lib.gpu import fusion
from lib.machine.device import circumstances, convolves_in_bfloat16, make_deterministic, pick_device, threads_for
from lib.machine.failures import failures_explained
from lib.machine.memory import keep_freed_memory
from lib.machine.stopping import ENDS_WITH_PARENT, Stop
from lib.metrics import RunFacts, write_metrics
from lib.progress import Progress
from lib.resnet import ResNet
from lib.turns import in_turns
from lib.words import counted

ROOT = Path(__file__).parents[1]
DECIDES_RESULTS = (  # a checkpoint made by other versions of these is not used
    "lib/batches.py",
    "lib/card.py",
    "lib/cifar10.py",
    "lib/dropout.py",
    "lib/ic.py",
    "lib/optimizer.py",
    "lib/resnet.py",
    "lib/training.py",
    "lib/gpu/captured.py",
    "lib/gpu/cast.py",
    "lib/gpu/convolved.py",
    "lib/gpu/fused.py",
    "lib/gpu/fused_kernels.py",
    "lib/gpu/fusion.py",
    "lib/machine/device.py",
    "stages/train.py",
)
SLOW_IN_BFLOAT16 = (
    "PyTorch has no quick convolutions in bfloat16 for this CPU (on Intel's and AMD's they need AVX-512): "
    "precision: float32 is several times as fast here"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cards", metavar="card", nargs="+", type=Path, help="a run card, as stages.plan writes them")
    paths = parser.parse_args().cards
    stop = Stop()
    with errors_exit("train"):
        stop.listen()
        keep_freed_memory()
        cards = read_with_study(paths)
        if all(card.device == "cpu" for card, _ in cards):
            # PyTorch's optimizers open a GPU, whatever they train. Read when CUDA starts, which nothing has done yet.
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        shared = Shared(stop, len(cards))
        in_turns({card.name: train(card, study, shared) for card, study in cards})


class Shared:
    """What the runs of this process share: the stop, the images in memory, and threads."""

    def __init__(self, stop: Stop, runs: int) -> None:
        self.stop = stop
        self.alone = runs == 1 and ENDS_WITH_PARENT not in os.environ  # no other run is trained meanwhile
        self.data = functools.cache(cifar10.load)
        self.served = functools.cache(served)
        self.writers = ThreadPoolExecutor(runs) if runs > 1 else None
        self.threads: int | None = None  # PyTorch's on the CPU, once a run has set them

    def take_threads(self, wanted: int) -> None:
        """Set the number of threads for all runs. Raises BadInput for a run that was trained with another number.

        Either its results or the others' would change.
        """
        if self.threads not in (None, wanted):
            raise BadInput(
                f"it was trained with {counted(wanted, 'thread')}, those before it here with {self.threads}: "
                "train it by a command of its own"
            )
        self.threads = wanted
        torch.set_num_threads(wanted)

    def meanwhile(self, do: Callable[[Snapshot], None], snapshot: Snapshot) -> Iterator[None]:
        """Do it in a thread while the other runs go on, otherwise a GPU would be idle; at once if there are none."""
        if self.writers is None:
            do(snapshot)
            return
        doing = self.writers.submit(do, snapshot)
        while not doing.done():
            time.sleep(0.001)  # otherwise runs that all wait would starve the writers
            yield
        doing.result()


def train(card: RunCard, study: list[RunCard], shared: Shared) -> Iterator[None]:
    """Train a card's run, or what is left of it, step by step; between two steps other runs may take their turns.

    The rest of the study matters only to the progress display.
    """
    with failures_explained(card.batch_size):
        data = shared.data(Path("data/cifar10"), card.dataset, card.train_images, card.test_images)
        model = model_of(card)
    progress = progress_of(card, study, data, alone=shared.alone)

    checkpoints = checkpoints_of(card, data.sha256)
    metrics, weights = outputs_of(card)
    with checkpoints.held(), failures_explained(card.batch_size):
        require_writable(metrics, weights)
        snapshot = done = checkpoints.newest(card.epochs)
        if done:
            progress.resumed(done.history, checkpoints.folder)
            write_metrics(metrics, facts_of(card, data, model, done), done.history)
        if done is None or done.epoch < card.epochs:
            size, checkpoint_size = bytes_of(model)
            require_room(weights.parent, size)
            checkpoints.require_room(checkpoint_size, card.epochs)
            for after_step in steps(card, data, model, done, progress, shared):
                if after_step is not None:  # an epoch has ended
                    snapshot = after_step
                    yield from shared.meanwhile(checkpoints.save, snapshot)
                    write_metrics(metrics, facts_of(card, data, model, snapshot), snapshot.history)
                    progress.epoch(snapshot.history[-1])
                yield
        assert snapshot is not None  # a card has at least one epoch
        write_whole(weights, weights_file(snapshot))


def outputs_of(card: RunCard) -> tuple[Path, Path]:
    """The paths of a run's metrics and weights."""
    return Path("metrics", f"{card.name}.json"), Path("models", f"{card.name}.pt")


def weights_file(snapshot: Snapshot) -> bytes:
    """The content of the file of weights: the model's state, as torch.load reads it."""
    content = io.BytesIO()  # torch.save to a path would write the file's name into the file
    torch.save(snapshot.model, content)
    return content.getvalue()


def checkpoints_of(card: RunCard, data_sha256: str) -> Checkpoints:
    """The checkpoint folder of a card's run on a data set, trained by the code as it is now."""
    return Checkpoints(checkpoint_root(), card.name, card.identity(data_sha256, code_digests()))


@functools.cache
def code_digests() -> dict[str, str]:
    """The digest of each file that decides results, as it is at the first call: a study asks for every run of it."""
    return {name: source.digest(ROOT / name) for name in DECIDES_RESULTS}


def checkpoint_root() -> Path:
    """Where all checkpoint folders are: in DVC's root, so that experiments in temporary folders share them."""
    return Path(os.environ.get("DVC_ROOT", "."), "checkpoints")


def steps(
    card: RunCard, data: cifar10.DataSet, model: ResNet, done: Snapshot | None, progress: Progress, shared: Shared
) -> Iterator[Snapshot | None]:
    """Train the remaining epochs on the card's device: yields None after each step, and a snapshot after each epoch."""
    device = pick_device(card.device)
    make_deterministic()
    if device.type == "cpu":
        shared.take_threads(threads_for(done.circumstances[-1] if done else None))
    start = Snapshot.of_start(done, circumstances(device, fused=device.type == "cuda" and fusion.works()))
    print(f"{progress.title}  trained by {start.circumstances[-1]}", flush=True)
    if card.precision == "bfloat16" and not convolves_in_bfloat16(device):
        print(f"{progress.title}  {SLOW_IN_BFLOAT16}", flush=True)
    train_set, test_set = shared.served(data, card.batch_size, device)
    model.to(device).to(memory_format=torch.channels_last)  # the layout of the batches
    recipe = recipe_of(card)
    if device.type == "cpu" and shared.alone:
        step = training.seconds_per_step(model, recipe, next(train_set.in_order()))
        progress.warn_if_slow(step * len(train_set) / card.batch_size, card.epochs - start.epoch)

    def train_batches(epoch: int) -> Iterator[training.Batch]:
        batches = train_set.shuffled(card.seed_for("order", epoch), card.augmentation)
        return progress.batches(epoch, shared.stop.at_steps(batches))

    return training.fit(
        model,
        recipe,
        train_batches,
        lambda: shared.stop.at_steps(test_set.in_order()),
        lambda epoch, step: card.seed_for("dropout", epoch, step),
        start,
    )


def model_of(card: RunCard) -> ResNet:
    """A card's network with its initial weights, on the CPU."""
    torch.manual_seed(card.seed_for("initial weights"))
    return ResNet(card.block, card.blocks_per_stage, card.ordering, dropout_p=card.dropout_p or 0.0)


def recipe_of(card: RunCard) -> training.Recipe:
    """The training loop's part of a card."""
    return training.Recipe(**{field.name: getattr(card, field.name) for field in dataclasses.fields(training.Recipe)})


def bytes_of(model: ResNet) -> tuple[int, int]:
    """The most bytes on disk of the weights, and of a checkpoint: with Adam's two moments, and the history."""
    weights = sum(each.nbytes + 1_000 for each in model.state_dict().values())  # 1,000 for its name and place
    return weights, 3 * weights + 1_000_000


def progress_of(card: RunCard, study: list[RunCard], data: cifar10.DataSet, *, alone: bool) -> Progress:
    """The display of a run of a study; a run's time is about proportional to its depth and to the epochs it lacks.

    `alone`: no other run is trained at the same time, so the study's later ones come after it.
    """
    place = study.index(card) + 1
    title = f"run {place} of {len(study)}  {card.name} ({card.depth} layers, {data.name})"
    whole = card.epochs * card.depth
    later = [epochs_left(each, data) * each.depth / whole for each in study[place:]] if alone else None
    return Progress(title, card.epochs, len(data.train.labels), later)


def epochs_left(card: RunCard, data: cifar10.DataSet) -> int:
    """How many epochs a card's run lacks here, by its checkpoints."""
    return card.epochs - checkpoints_of(card, data.sha256).last(up_to=card.epochs)


def facts_of(card: RunCard, data: cifar10.DataSet, model: ResNet, snapshot: Snapshot) -> RunFacts:
    """The facts of a run's result, including where it was trained, which may not be here."""
    return RunFacts(
        network=card.network,
        block=card.block,
        depth=card.depth,
        ordering=card.ordering,
        seed=card.seed,
        dataset=data.name,
        train_images=card.train_images,
        test_images=card.test_images,
        epochs=card.epochs,
        recipe=card.recipe,
        parameters=sum(each.numel() for each in model.parameters()),
        torch=" then ".join(dict.fromkeys(each.torch for each in snapshot.circumstances)),
        device=" then ".join(dict.fromkeys(each.place for each in snapshot.circumstances)),
    )


if __name__ == "__main__":
    main()
