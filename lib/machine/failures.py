"""What a device's failures mean: memory that ran out, kernels that failed, a GPU that was lost."""

import contextlib
import re
from collections.abc import Iterator

import torch

from lib.errors import BadInput, TryAgain

NO_MEMORY = re.compile(r"(can't|cannot) allocate memory|out of memory|unable to allocate", re.IGNORECASE)
# What a GPU's own libraries report, not PyTorch's errors about tensors on the wrong device.
DEVICE_LOST = re.compile(
    r"(CUDA|cuDNN|cuBLAS|Frontend) (driver |unknown )?(error|init)|Error \[CUDA\]|cudaGetDeviceCount|CUDA_ERROR|"
    r"(CUDNN|CUBLAS)_STATUS|NVML|No CUDA GPUs"
)


def is_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the GPU's or the system's."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(NO_MEMORY.search(str(error)))


@contextlib.contextmanager
def failures_explained(batch_size: int) -> Iterator[None]:
    """Turn out-of-memory and Triton errors into BadInput, and a lost device into TryAgain.

    The batch is never made smaller here: that would be another experiment.
    """
    try:
        yield
    except Exception as error:
        of_triton = type(error).__module__.startswith("triton")
        if not isinstance(error, RuntimeError | MemoryError | OSError) and not of_triton:
            raise
        text = " ".join(str(error).split())[:200]
        if is_of_memory(error):
            raise BadInput(
                f"out of memory with batch_size {batch_size} ({text or 'no more from the system'}): free some, take a "
                "larger machine, or lower batch_size in params.yaml, which changes the result"
            ) from None
        if of_triton:
            raise BadInput(
                f"Triton failed ({type(error).__name__}: {text}): set IC_FUSE_LAYERS=0 in the environment to train "
                "with PyTorch's own kernels"
            ) from None
        if isinstance(error, RuntimeError) and DEVICE_LOST.search(text):
            raise TryAgain(f"the device failed ({text}); the same command goes on from the last whole epoch") from error
        raise
