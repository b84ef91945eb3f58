"""lib/machine/failures.py: what a device's failures mean."""

import pytest
import torch

from lib.errors import BadInput, TryAgain
from lib.machine.failures import failures_explained


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        OSError(12, "Cannot allocate memory"),  # as where a compiler is to be started
    ],
    ids=["GPU", "Python", "CPU", "system"],
)
def test_memory_that_runs_out_is_bad_input_that_names_the_batch_size(error: Exception) -> None:
    with pytest.raises(BadInput, match=r"out of memory with batch_size 64 .*params\.yaml") as caught:
        with failures_explained(64):
            raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: an illegal memory access",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA driver error: unknown error",
        "CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`",
        "NVML_SUCCESS == r INTERNAL ASSERT FAILED",
        "No CUDA GPUs are available",
        "Triton Error [CUDA]: an illegal memory access was encountered",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
        "Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
        "CUDA driver initialization failed, you might not have a CUDA gpu.",
        "Can't initialize NVML",
    ],
)
def test_a_device_that_is_lost_is_worth_another_try(text: str) -> None:
    with pytest.raises(TryAgain, match="same command"), failures_explained(64):
        raise RuntimeError(text)


def test_what_is_explained_already_stays_as_it_is() -> None:
    with pytest.raises(BadInput, match="^out of memory$"), failures_explained(64):
        raise BadInput("out of memory")


def test_where_triton_fails_there_is_another_way() -> None:
    of_triton = type("CompilationError", (Exception,), {"__module__": "triton.compiler.errors"})
    with pytest.raises(BadInput, match="Triton failed .CompilationError: at 1:2.*IC_FUSE_LAYERS=0"):
        with failures_explained(64):
            raise of_triton("at 1:2:\n  no")


@pytest.mark.parametrize(
    "text",
    [
        "shapes differ",
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!",
        "adaptive_avg_pool2d_backward_cuda does not have a deterministic implementation",
    ],
)
def test_any_other_fault_stays_what_it_is(text: str) -> None:
    """A layer of one's own that is at fault, even on a GPU: the same command would meet it again."""
    with pytest.raises(RuntimeError, match=text[:20]), failures_explained(64):
        raise RuntimeError(text)
