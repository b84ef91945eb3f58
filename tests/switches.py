"""The switches of a whole process that a stage turns, turned back: else a test would decide what the next one finds."""

import contextlib
import os
import signal
from collections.abc import Iterator
from unittest import mock

import torch


@contextlib.contextmanager
def turned_back() -> Iterator[None]:
    """PyTorch's, the handlers of signals, and the environment, which says nothing of a DVC around the test."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    deterministic = torch.get_deterministic_debug_mode()
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    filled = torch.utils.deterministic.fill_uninitialized_memory
    before = cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32
    try:
        with mock.patch.dict(os.environ):
            for name in ("DVC_STAGE", "DVC_ROOT"):
                os.environ.pop(name, None)
            yield
    finally:
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = filled
        cudnn.benchmark, cudnn.allow_tf32, products.allow_tf32 = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
