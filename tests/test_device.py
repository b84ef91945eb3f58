"""lib/device.py: the device that is asked for, and what its failures mean."""

import pytest
import torch

from lib import device
from lib.errors import BadInput, TryAgain


@pytest.mark.parametrize(
    "wanted, there, picked",
    [("auto", True, "cuda"), ("auto", False, "cpu"), ("cpu", True, "cpu"), ("cpu", False, "cpu")],
)
def test_the_device_is_a_gpu_only_where_there_is_one_and_it_may_be(
    wanted: str, there: bool, picked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device.pick_device(wanted).type == picked


def test_cuda_without_a_gpu_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BadInput, match=r"device: cuda.*params\.yaml"):
        device.pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.pick_device("cuda").type == "cuda"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
    ids=["GPU", "Python", "CPU"],
)
def test_memory_that_runs_out_is_bad_input_that_names_the_batch_size(error: Exception) -> None:
    with pytest.raises(BadInput, match=r"out of memory with batch_size 64 .*params\.yaml") as caught:
        with device.failures_explained(64):
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
    with pytest.raises(TryAgain, match="same command"), device.failures_explained(64):
        raise RuntimeError(text)


def test_where_triton_fails_there_is_another_way() -> None:
    of_triton = type("CompilationError", (Exception,), {"__module__": "triton.compiler.errors"})
    with pytest.raises(BadInput, match="Triton failed .CompilationError: at 1:2.*IC_FUSE_LAYERS=0"):
        with device.failures_explained(64):
            raise of_triton("at 1:2:\n  no")


def test_metrics_name_a_gpu_by_itself_unless_layers_were_not_fused_there() -> None:
    fused, plain = (device.Circumstances("2.11", "NVIDIA Z9", layers=layers) for layers in ("fused", "one by one"))
    assert (fused.place, plain.place) == ("NVIDIA Z9", "NVIDIA Z9, layers one by one")
    assert device.circumstances(torch.device("cpu")).place == "cpu"
    assert str(fused) == "PyTorch 2.11 on NVIDIA Z9 (layers fused)"


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
    with pytest.raises(RuntimeError, match=text[:20]), device.failures_explained(64):
        raise RuntimeError(text)


@pytest.mark.parametrize(
    ("has", "told"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, ""),
        ({"avx512_bf16": True, "amx_bf16": True, "amx_int8": True}, " amx_bf16 avx512_bf16"),
    ],
)
def test_a_cpus_instructions_for_bfloat16_are_told(
    has: dict[str, bool], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them oneDNN's convolutions round otherwise, though the vectors are as wide."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert device.instructions() == torch.backends.cpu.get_cpu_capability() + told


@pytest.mark.parametrize("began, now", [(1, 1), (2, 2), (10_000, 1), (None, 1)])
def test_a_run_that_goes_on_takes_the_threads_it_began_with_if_there_are_so_many(
    began: int | None, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cores", lambda: 2)
    assert device.threads_for(device.Circumstances("2.14.1", "cpu", "AVX2", began)) == now


def test_a_run_that_begins_takes_the_threads_there_are() -> None:
    assert device.threads_for(None) == torch.get_num_threads()


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5, 7, 9}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert device.cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")  # macOS
    assert device.cores() == 64


def test_the_circumstances_of_a_cpu_are_all_that_bits_depend_on() -> None:
    here = device.circumstances(torch.device("cpu"))
    assert (here.torch, here.device, here.threads) == (torch.__version__, "cpu", torch.get_num_threads())
    assert here.instructions == device.instructions()
    assert type(here.torch) is str  # torch's own class of version could not be kept in a checkpoint
    assert "1 thread)" in str(here)
