"""lib/machine/device.py: the device that is asked for, and what results depend on there."""

import math

import pytest
import torch

from lib.errors import BadInput
from lib.machine import device


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


def test_metrics_name_a_gpu_by_itself_unless_layers_were_not_fused_there() -> None:
    fused, plain = (device.Circumstances("2.11", "NVIDIA Z9", layers=layers) for layers in ("fused", "one by one"))
    assert (fused.place, plain.place) == ("NVIDIA Z9", "NVIDIA Z9, layers one by one")
    assert device.circumstances(torch.device("cpu")).place == "cpu"
    assert str(fused) == "PyTorch 2.11 on NVIDIA Z9 (layers fused)"


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


@pytest.mark.parametrize("had, now", [(1, 1), (2, 2), (10_000, 1), (None, 1)])
def test_a_run_that_goes_on_takes_the_threads_it_had_if_there_are_as_many_cores(
    had: int | None, now: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "cores", lambda: 2)
    assert device.threads_for(device.Circumstances("2.14.1", "cpu", "AVX2", had)) == now


def test_a_run_that_begins_takes_the_threads_there_are() -> None:
    assert device.threads_for(None) == torch.get_num_threads()


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {5, 7, 9}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("lib.machine.limits.cpus", lambda: math.inf)
    assert device.cores() == 3
    monkeypatch.setattr("lib.machine.limits.cpus", lambda: 1.5)
    assert device.cores() == 2
    monkeypatch.setattr("lib.machine.limits.cpus", lambda: math.inf)
    monkeypatch.delattr("os.sched_getaffinity")  # macOS
    assert device.cores() == 64


def test_a_run_takes_no_more_threads_than_a_container_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr("lib.machine.limits.cpus", lambda: 0.5)
    assert device.threads_for(None) == 1


def test_the_circumstances_of_a_cpu_are_all_that_bits_depend_on() -> None:
    here = device.circumstances(torch.device("cpu"))
    assert (here.torch, here.device, here.threads) == (torch.__version__, "cpu", torch.get_num_threads())
    assert here.instructions == device.instructions()
    assert type(here.torch) is str  # torch's own class of version could not be kept in a checkpoint
    assert "1 thread)" in str(here)
