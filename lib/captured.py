"""A training step on a GPU, captured as a CUDA graph: one launch instead of a thousand or two.

These networks are deep and thin: at batch 64 a GPU computes each of their operations faster than Python can ask for the
next. Replaying a capture takes Python out of the loop; the operations, and their results, are the same.
"""

import os
import sys
from collections.abc import Callable
from typing import NamedTuple

import torch

Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, ...), labels (B,)
SWITCH = "IC_CAPTURE_STEPS"  # an environment variable; 0 keeps to the plain path
WARM_UP_STEPS = 3  # as PyTorch's notes on CUDA graphs ask for: libraries choose their algorithms, buffers are made


class Capture(NamedTuple):
    """A captured step, and the batch that it reads."""

    graph: torch.cuda.CUDAGraph
    images: torch.Tensor
    labels: torch.Tensor


class CapturedStep:
    """Runs `step(batch)` by replaying a capture of it, one for each size of batch.

    `state()` lists the tensors that the step changes, those last that only a first step makes. Capturing leaves them
    as they were. Everything else that a step does must be on the GPU: a replay runs no Python.
    """

    def __init__(self, step: Callable[[Batch], None], state: Callable[[], list[torch.Tensor]]) -> None:
        self.step, self.state = step, state
        self.default = torch.cuda.default_generators[torch.cuda.current_device()]
        # The captures' own random numbers: with the shared ones a run would depend on those trained beside it.
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
        """Capture a step on these tensors. Restarts the process on the plain path if the capture itself fails."""
        shared = self.default.graphsafe_get_state()
        before = [each.detach().clone() for each in self.state()]
        try:
            self.default.graphsafe_set_state(self.random)
            for _ in range(WARM_UP_STEPS):
                self.step((images, labels))
            graph = self._graph((images, labels))
        finally:
            self.default.graphsafe_set_state(shared)
        made = self.state()[len(before) :]  # by the first step: an optimizer's moments, which begin at zero
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
    """Whether steps are to be captured, where there is a GPU."""
    return os.environ.get(SWITCH, "1") != "0"


def _restart_without(error: RuntimeError) -> None:
    """Start this process anew on the plain path: after a failed capture CUDA's allocator cannot be relied upon."""
    reason = " ".join(str(error).split())[:200]
    print(f"train: capturing a step failed ({reason}); training goes on plainly, slower", file=sys.stderr, flush=True)
    os.environ[SWITCH] = "0"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
