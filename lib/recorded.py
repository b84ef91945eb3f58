"""A training step on a GPU, recorded once as a CUDA graph: one launch instead of about two thousand.

These networks are deep and thin: at batch 64 a GPU computes each of their operations faster than Python can ask for the
next. Replaying a recording takes Python out of the loop; the operations, and their results, are the same.
"""

import os
import sys
from collections.abc import Callable

import torch

Batch = tuple[torch.Tensor, torch.Tensor]  # images (B, ...), labels (B,)
SWITCH = "IC_RECORD_STEPS"  # an environment variable; 0 keeps to the plain path
WARM_UP_STEPS = 3  # as PyTorch's notes on CUDA graphs ask for: libraries choose their algorithms, buffers are made


class RecordedStep:
    """Runs `step(batch)` by replaying a recording of it; batches of another size than the first run it plainly.

    `state()` lists the tensors that the step changes, those last that only a first step makes. Recording leaves them
    as they were. Everything else that a step does must be on the GPU: a replay runs no Python.
    """

    def __init__(self, step: Callable[[Batch], None], state: Callable[[], list[torch.Tensor]]) -> None:
        self.step, self.state = step, state
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Batch, seed: int) -> None:
        if self.graph is None:
            self._record(batch)
        if batch[0].shape == self.images.shape:
            assert self.graph is not None
            self.images.copy_(batch[0])
            self.labels.copy_(batch[1])
            self.random.manual_seed(seed)
            self.graph.replay()
        else:
            torch.cuda.manual_seed(seed)
            self.step(batch)

    def _record(self, batch: Batch) -> None:
        """Record a step on batches of this one's shape. Restarts the process on the plain path if that fails."""
        self.images, self.labels = (each.clone() for each in batch)
        default = torch.cuda.default_generators[torch.cuda.current_device()]
        shared = default.graphsafe_get_state()
        # The recording's own random numbers: with the shared ones a run would depend on those trained beside it.
        self.random = default.clone_state()
        before = [each.detach().clone() for each in self.state()]
        try:
            default.graphsafe_set_state(self.random)
            for _ in range(WARM_UP_STEPS):
                self.step((self.images, self.labels))
            self.graph = self._captured()
        finally:
            default.graphsafe_set_state(shared)
        made = self.state()[len(before) :]  # by the first step: an optimizer's moments, which begin at zero
        with torch.no_grad():
            for tensor, value in zip(self.state(), [*before, *map(torch.zeros_like, made)], strict=True):
                tensor.copy_(value)

    def _captured(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.random)
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
                self.step((self.images, self.labels))
        except RuntimeError as error:
            _restart_without(error)
        return graph


def wanted() -> bool:
    """Whether steps are to be recorded, where there is a GPU."""
    return os.environ.get(SWITCH, "1") != "0"


def _restart_without(error: RuntimeError) -> None:
    """Start this process anew on the plain path: after a failed recording CUDA's allocator cannot be relied upon."""
    reason = " ".join(str(error).split())[:200]
    print(f"train: recording a step failed ({reason}); training goes on plainly, slower", file=sys.stderr, flush=True)
    os.environ[SWITCH] = "0"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
