"""Where a training step's time goes, measured by PyTorch's own hooks: the timed loop is not changed for it."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch
from torch import nn

PARTS = ("data", "forward", "backward", "optimizer")
T = TypeVar("T")


class Stopwatch:
    """Seconds of each part of every step, while it is on.

    "forward" is the network's; "backward" begins where that ends, and so includes the loss; "data" is the wait for the
    batch. On a GPU each boundary synchronizes with the device: measure rates while it is off.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.on = False
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._last = 0.0
        model.register_forward_pre_hook(lambda *_: self._begin())
        model.register_forward_hook(lambda *_: self._end("forward"))
        optimizer.register_step_pre_hook(lambda *_: self._end("backward"))
        optimizer.register_step_post_hook(lambda *_: self._end("optimizer"))

    def over(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time to fetch each is "data"."""
        iterator = iter(batches)
        while True:
            self._begin()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._end("data")
            yield batch

    def taken(self) -> dict[str, list[float]]:
        """What was measured since the last call."""
        seconds, self.seconds = dict(self.seconds), defaultdict(list)
        return seconds

    def _begin(self) -> None:
        if self.on:
            wait_for_device()
            self._last = time.perf_counter()

    def _end(self, part: str) -> None:
        if self.on:
            wait_for_device()
            now = time.perf_counter()
            self.seconds[part].append(now - self._last)
            self._last = now


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
