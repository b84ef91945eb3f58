"""A training step on a GPU, captured as a CUDA graph: one launch instead of one or two thousand.

These networks are deep and thin: at batch 64 a GPU computes each of their operations faster than Python can launch the
next. Replaying a capture takes Python out of the loop; the operations, and their results, are the same.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, ...), labels (B,)
SWITCH = "IC_CAPTURE_STEPS"  # environment variable; 0: plain steps, no capture
WARM_UP_STEPS = 3  # as PyTorch's notes on CUDA graphs ask: libraries choose algorithms, buffers are allocated


class Capture(NamedTuple):
    """A captured step, and the batch that it reads."""

    graph: torch.cuda.CUDAGraph
    images: torch.Tensor
    labels: torch.Tensor


class CapturedStep:
    """Runs `step(batch)` by replaying a capture of it, one per batch shape.

    `state()` lists the tensors that the step changes, last those that only the first step creates. Capturing leaves
    their values unchanged. All else that a step does must happen on the GPU: a replay runs no Python.
    """

    def __init__(self, step: Callable[[Batch], None], state: Callable[[], list[torch.Tensor]]) -> None:
        self.step, self.state = step, state
        self.default = torch.cuda.default_generators[torch.cuda.current_device()]
        # The captures' own generator: with the default one, a run would depend on those trained beside it.
        self.random = self.default.clone_state()
        self.captures = dict[torch.Size, Capture]()

    def __call__(self, batch: Batch, seed: int) -> None:
        images, labels = batch
        if images.shape not in self.captures:
            self.captures[images.shape] = self._capture(images.clone(), labels.clone())
        capture = self.captures[images.shape]
        capture.images.copy_(images)
        capture.labels.copy_(labels)
        self.random.manual_seed(seed)
        capture.graph.replay()

    def _capture(self, images: torch.Tensor, labels: torch.Tensor) -> Capture:
        """Capture a step on these tensors. If the capture itself fails, restarts the process without captures."""
        shared = self.default.graphsafe_get_state()
        before = [each.detach().clone() for each in self.state()]
        try:
            self.default.graphsafe_set_state(self.random)
            for _ in range(WARM_UP_STEPS):
                self.step((images, labels))
            graph = self._graph((images, labels))
        finally:
            self.default.graphsafe_set_state(shared)
        made = self.state()[len(before) :]  # by the first step: an optimizer's state, initially zero
        with torch.no_grad():
            for tensor, value in zip(self.state(), [*before, *map(torch.zeros_like, made)], strict=True):
                tensor.copy_(value)
        return Capture(graph, images, labels)

    def _graph(self, batch: Batch) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.random)
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self.step(batch)
        except RuntimeError as error:
            _restart_without(error)
        return graph


def wanted() -> bool:
    """Whether to capture steps where there is a GPU."""
    return os.environ.get(SWITCH, "1") != "0"


def _restart_without(error: RuntimeError) -> None:
    """Restart this process without captures: after a failed capture CUDA's allocator is unreliable.

    Raises the error in a child of multiprocessing, which no command restarts.
    """
    if multiprocessing.parent_process() is not None:
        raise error
    reason = " ".join(str(error).split())[:200]
    print(f"train: capturing a step failed ({reason}); training goes on plainly, slower", file=sys.stderr, flush=True)
    os.environ[SWITCH] = "0"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
