"""The engine as a contender: the loop of lib.training.fit made endless, so that a block of it can be timed."""

import itertools
from collections.abc import Iterator

import torch

from benchmarks.stopwatch import Stopwatch, wait_for_device
from lib import training
from lib.batches import Batches
from lib.resnet import ResNet

AUGMENTATION = "crop_flip"  # as in the reference loops


def recipe(precision: str) -> training.Recipe:
    return training.Recipe(
        epochs=1,
        optimizer="adam",
        momentum=None,
        weight_decay=0.0,
        learning_rate=0.001,
        learning_rate_rule="constant",
        learning_rate_steps=None,
        learning_rate_factor=None,
        precision=precision,
    )


class Engine:
    """A run of the engine. `served` is the training and the test set, shared by the runs of a process."""

    def __init__(
        self,
        model: ResNet,
        precision: str,
        served: tuple[Batches, Batches],
        device: torch.device,
    ) -> None:
        self.model = model.to(device).to(memory_format=torch.channels_last)
        self.precision, self.device = precision, device
        self.train_set, self.test_set = served
        self.optimizer = training.make_optimizer(recipe(precision), self.model)
        self.watch = Stopwatch(self.model, self.optimizer)
        self.images = 0  # trained on so far
        wait_for_device()  # the weights were laid out on this stream, and are trained on another

    def steps(self) -> Iterator[None]:
        """Train endlessly, one step at a time."""
        tally = training.Tally(self.device)
        take_step = training.stepper(self.model, self.optimizer, self.precision, tally)
        self.model.train()
        seeds = itertools.count()
        while True:
            for batch in self.watch.over(self.train_set.shuffled(next(seeds), AUGMENTATION)):
                if len(batch[1]) < self.train_set.batch_size:
                    continue  # the last: on a GPU a block in which its step is captured would be slow
                take_step(batch, next(seeds))
                self.images += len(batch[1])
                yield None

    def evaluate(self, batches: int) -> int:
        """Evaluate that many test batches; return their number of images."""
        some = itertools.islice(self.test_set.in_order(), batches)
        return int(training.evaluate(self.model, some, self.precision, self.device).images)
