"""The one training loop: it would train any classifier, on any device."""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from lib.checkpoint import Snapshot
from lib.errors import BadInput
from lib.metrics import EpochRecord

Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, ...), labels (B,)

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STEPS_BETWEEN_CHECKS = 50  # how often the host looks at the loss; each look waits for the device


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train, whatever the network and the data. Its fields are a run card's."""

    epochs: int
    optimizer: str  # "adam" or "sgd"
    momentum: float | None  # SGD only
    weight_decay: float
    learning_rate: float
    learning_rate_rule: str  # "constant" or "steps"
    learning_rate_steps: tuple[int, ...] | None
    learning_rate_factor: float | None
    precision: str  # a key of PRECISIONS


@dataclasses.dataclass
class Tally:
    """Sums over images, kept on the device; divided once, when they are read."""

    loss: torch.Tensor
    correct: torch.Tensor
    images: int = 0

    @classmethod
    def on(cls, device: torch.device) -> "Tally":
        return cls(
            torch.zeros((), dtype=torch.float64, device=device), torch.zeros((), dtype=torch.int64, device=device)
        )

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: its mean loss (), its logits (B, classes) and labels (B,)."""
        self.loss += loss.detach().double() * len(labels)
        self.correct += (logits.detach().argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def mean_loss(self) -> float:
        return self.loss.item() / self.images

    def accuracy(self) -> float:
        return int(self.correct.item()) / self.images


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The rate of an epoch, counted from 1: a pure function, so that resuming needs no scheduler's state."""
    if recipe.learning_rate_rule == "constant":
        return recipe.learning_rate
    assert recipe.learning_rate_steps is not None and recipe.learning_rate_factor is not None
    drops = sum(epoch > step for step in recipe.learning_rate_steps)
    return recipe.learning_rate * recipe.learning_rate_factor**drops


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Adam (PyTorch's betas and eps) or SGD. Weight decay is the L2 penalty on every parameter."""
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    assert recipe.momentum is not None
    return torch.optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )


def forward(model: nn.Module, batch: Batch, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy () and logits (B, classes); with bfloat16 the network's arithmetic is in mixed precision."""
    images, labels = batch
    mixed = precision != "float32"
    with torch.autocast(images.device.type, dtype=PRECISIONS[precision], enabled=mixed):
        logits = model(images)
    return functional.cross_entropy(logits.float(), labels), logits


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, precision: str, tally: Tally) -> None:
    """One step down the gradient; what the batch came to is added to the tally."""
    optimizer.zero_grad(set_to_none=True)
    loss, logits = forward(model, batch, precision)
    loss.backward()
    optimizer.step()
    tally.add(loss, logits, batch[1])


def evaluate(model: nn.Module, batches: Iterable[Batch], precision: str, device: torch.device) -> Tally:
    """The tally over all batches in eval mode; the model's mode is restored afterwards."""
    mode = model.training
    model.eval()
    tally = Tally.on(device)
    with torch.inference_mode():
        for batch in batches:
            tally.add(*forward(model, batch, precision), batch[1])
    model.train(mode)
    return tally


def fit(
    model: nn.Module,
    recipe: Recipe,
    train_batches: Callable[[int], Iterable[Batch]],
    test_batches: Callable[[], Iterable[Batch]],
    seed: Callable[[int], int],
    start: Snapshot,
) -> Iterator[Snapshot]:
    """Train up to the recipe's epochs, from where `start` ended; yield a snapshot after each epoch.

    `train_batches(epoch)` and `seed(epoch)` give an epoch's data and the seed of its dropout; epochs count from 1.
    A snapshot shares the model's memory: save it before asking for the next.
    Raises BadInput if a loss is no longer finite.
    """
    device = next(model.parameters()).device
    optimizer = make_optimizer(recipe, model)
    history = list(start.history)
    if history:
        model.load_state_dict(start.model)
        optimizer.load_state_dict(start.optimizer)
    for epoch in range(start.epoch + 1, recipe.epochs + 1):
        # Every epoch starts its own stream of random numbers: nothing before it can disturb it.
        torch.manual_seed(seed(epoch))
        rate = learning_rate(recipe, epoch)
        for group in optimizer.param_groups:
            group["lr"] = rate

        # Train.
        model.train()
        train = Tally.on(device)
        for step, batch in enumerate(train_batches(epoch), start=1):
            train_step(model, optimizer, batch, recipe.precision, train)
            if step % STEPS_BETWEEN_CHECKS == 0:
                check_finite(train, epoch)
        check_finite(train, epoch)

        # Evaluate.
        test = evaluate(model, test_batches(), recipe.precision, device)
        check_finite(test, epoch)
        history.append(EpochRecord(epoch, rate, train.mean_loss(), train.accuracy(), test.mean_loss(), test.accuracy()))
        state, optimizer_state = on_cpu(dict(model.state_dict())), on_cpu(optimizer.state_dict())
        yield Snapshot(tuple(history), state, optimizer_state, start.circumstances)


def on_cpu(state: Any) -> Any:
    """The same dicts and lists, with every tensor on the CPU."""
    if isinstance(state, torch.Tensor):
        return state.cpu()
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    return [on_cpu(value) for value in state] if isinstance(state, list) else state


def check_finite(tally: Tally, epoch: int) -> None:
    """Raise BadInput if a loss was NaN or infinite: every later number would be one too."""
    if not math.isfinite(loss := tally.loss.item()):
        raise BadInput(
            f"the loss became {loss} in epoch {epoch}; the records of earlier epochs are kept: "
            "lower learning_rate, or set precision: float32"
        )


def seconds_per_step(model: nn.Module, recipe: Recipe, batch: Batch) -> float:
    """The time of one training step here, the faster of two after one to warm up; the model stays as it is."""
    trial = copy.deepcopy(model).train()
    optimizer = make_optimizer(recipe, trial)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        train_step(trial, optimizer, batch, recipe.precision, Tally.on(batch[0].device))
        times.append(time.perf_counter() - start)
    return min(times[1:])
