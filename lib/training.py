"""The one training loop, for any classifier on any device."""

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
from lib.gpu import captured, cast
from lib.gpu.captured import Batch
from lib.metrics import EpochRecord
from lib.optimizer import SGD, Adam

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
STEPS_BETWEEN_CHECKS = 50  # of the loss, on a CPU; on a GPU each check would wait for the device


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


class Tally:
    """Sums over images, kept on the device; divided only when read."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct, self.images = (torch.zeros((), dtype=torch.int64, device=device) for _ in range(2))

    def add(self, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add a batch: its mean loss (), its logits (B, classes) and labels (B,)."""
        self.loss += loss.detach().double() * len(labels)
        self.correct += (logits.detach().argmax(dim=1) == labels).sum()
        self.images += len(labels)

    def sums(self) -> list[torch.Tensor]:
        return [self.loss, self.correct, self.images]

    def mean_loss(self) -> float:
        return self.loss.item() / int(self.images)

    def accuracy(self) -> float:
        return int(self.correct) / int(self.images)


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """The rate of an epoch, counted from 1: a pure function, so that resuming needs no scheduler's state."""
    if recipe.learning_rate_rule == "constant":
        return recipe.learning_rate
    assert recipe.learning_rate_steps is not None and recipe.learning_rate_factor is not None
    drops = sum(epoch > step for step in recipe.learning_rate_steps)
    return recipe.learning_rate * recipe.learning_rate_factor**drops


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Adam (PyTorch's betas and eps) or SGD. Weight decay is the L2 penalty on every parameter."""
    device = next(model.parameters()).device
    on_gpu = device.type == "cuda"
    # On a GPU the rate is a tensor: a captured step reads what set_rate wrote there.
    rate = torch.tensor(recipe.learning_rate, device=device) if on_gpu else recipe.learning_rate
    how: dict[str, Any] = {"lr": rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adam":
        return Adam(model.parameters(), capturable=on_gpu, **how)
    assert recipe.momentum is not None
    return SGD(model.parameters(), momentum=recipe.momentum, **how)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def forward(model: nn.Module, batch: Batch, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy () and logits (B, classes); with bfloat16 the network runs in mixed precision."""
    images, labels = batch
    mixed = precision != "float32"
    with torch.autocast(images.device.type, dtype=PRECISIONS[precision], enabled=mixed):
        if mixed and images.is_cuda and torch.is_grad_enabled():
            logits = cast.forward(model, images, PRECISIONS[precision])
        else:
            logits = model(images)
    return functional.cross_entropy(logits.float(), labels), logits


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch, precision: str, tally: Tally) -> None:
    """One optimizer step; the batch's results are added to the tally."""
    optimizer.zero_grad(set_to_none=True)
    loss, logits = forward(model, batch, precision)
    loss.backward()
    optimizer.step()
    tally.add(loss, logits, batch[1])


def stepper(
    model: nn.Module, optimizer: torch.optim.Optimizer, precision: str, tally: Tally
) -> Callable[[Batch, int], None]:
    """A function that takes a training step, given a batch and its dropout seed: captured on a GPU, plain elsewhere."""

    def step(batch: Batch) -> None:
        train_step(model, optimizer, batch, precision, tally)

    def plain(batch: Batch, seed: int) -> None:
        torch.manual_seed(seed)
        step(batch)

    def changed() -> list[torch.Tensor]:
        moments = [each for state in optimizer.state.values() for each in state.values() if each is not None]
        return [*model.parameters(), *model.buffers(), *tally.sums(), *moments]

    if tally.loss.is_cuda and captured.wanted():
        return captured.CapturedStep(step, changed)
    return plain


def evaluate(model: nn.Module, batches: Iterable[Batch], precision: str, device: torch.device) -> Tally:
    """The tally over all batches in eval mode; the model's mode is restored afterwards."""
    mode = model.training
    model.eval()
    tally = Tally(device)
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
    seed: Callable[[int, int], int],
    start: Snapshot,
) -> Iterator[Snapshot | None]:
    """Train up to the recipe's epochs, from where `start` ended; yield a snapshot after each epoch, None after a step.

    Runs share a process by turns (lib/turns.py): each `yield` hands it over, so nothing here relies on global state
    across one.
    `train_batches(epoch)` gives an epoch's data, `seed(epoch, step)` the seed of a step's dropout; both count from 1.
    On a CPU a snapshot shares the model's memory: save it before asking for more.
    Raises BadInput if a loss is no longer finite.
    """
    device = next(model.parameters()).device
    optimizer = make_optimizer(recipe, model)
    history = list(start.history)
    if history:
        model.load_state_dict(start.model)
        groups = optimizer.state_dict()["param_groups"]  # the recipe's and this device's, not the checkpoint's
        optimizer.load_state_dict({"state": start.optimizer, "param_groups": groups})
    train = Tally(device)
    take_step = stepper(model, optimizer, recipe.precision, train)
    for epoch in range(start.epoch + 1, recipe.epochs + 1):
        set_rate(optimizer, rate := learning_rate(recipe, epoch))

        # Train. Every step has its own dropout seed: nothing before it can disturb it.
        model.train()
        for each in train.sums():
            each.zero_()
        for step, batch in enumerate(train_batches(epoch), start=1):
            take_step(batch, seed(epoch, step))
            if device.type == "cpu" and step % STEPS_BETWEEN_CHECKS == 0:  # a GPU would have to be waited for
                check_finite(train, epoch)
            yield None
        check_finite(train, epoch)

        # Evaluate.
        test = evaluate(model, test_batches(), recipe.precision, device)
        check_finite(test, epoch)
        history.append(EpochRecord(epoch, rate, train.mean_loss(), train.accuracy(), test.mean_loss(), test.accuracy()))
        state, optimizer_state = on_cpu(dict(model.state_dict())), on_cpu(optimizer.state_dict()["state"])
        yield Snapshot(tuple(history), state, optimizer_state, start.circumstances)


def on_cpu(state: Any) -> Any:
    """The same dicts, with every tensor on the CPU."""
    if isinstance(state, dict):
        return {key: on_cpu(value) for key, value in state.items()}
    return state.cpu() if isinstance(state, torch.Tensor) else state


def check_finite(tally: Tally, epoch: int) -> None:
    """Raise BadInput if a loss was NaN or infinite: all later ones would be too."""
    if not math.isfinite(loss := tally.loss.item()):
        raise BadInput(
            f"the loss became {loss} in epoch {epoch}; the records of earlier epochs are kept: "
            "lower learning_rate, or set precision: float32"
        )


def seconds_per_step(model: nn.Module, recipe: Recipe, batch: Batch) -> float:
    """Seconds of one plain training step here, the faster of two after a warm-up; the model is left unchanged."""
    trial = copy.deepcopy(model).train()
    optimizer = make_optimizer(recipe, trial)
    tally = Tally(batch[0].device)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        train_step(trial, optimizer, batch, recipe.precision, tally)
        tally.loss.item()  # waits for the device
        times.append(time.perf_counter() - start)
    return min(times[1:])
