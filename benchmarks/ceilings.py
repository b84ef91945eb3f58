"""The roofline: what a network's step must compute and move at least, and what the device can at most."""

import functools
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import BATCH_SIZE, DROPOUT_P, Network
from benchmarks.record import Ceilings, Work
from benchmarks.stopwatch import wait_for_device
from lib.resnet import ResNet

# How often a training step passes a convolution's output over memory at the least, with everything between two
# convolutions fused into them: forward it is written and read; backward its gradient is written, read for the inputs'
# gradient, and read beside it for the weights'; and normalisation's backward pass sums over both before it can begin.
PASSES = 8


def work(network: Network) -> Work:
    """Counted without memory for the weights, on PyTorch's meta device."""
    with torch.device("meta"):
        model = ResNet(network.block, network.blocks_per_stage, network.ordering, dropout_p=DROPOUT_P)
        images = torch.empty(BATCH_SIZE, 3, 32, 32)
    elements = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _, __, output: elements.append(output.numel()))
    with FlopCounterMode(display=False) as counter:
        model(images).sum().backward()
    return Work(
        parameters=sum(each.numel() for each in model.parameters()),
        flop_per_image=counter.get_total_flops() / BATCH_SIZE,
        convolution_outputs_per_image=sum(elements) / BATCH_SIZE,
    )


def measured(device: torch.device) -> Ceilings:
    """Of the whole device: square matrix products, and a copy far larger than any cache (bytes read and written)."""
    size, elements = (8192, 1 << 28) if device.type == "cuda" else (2048, 1 << 26)
    rates = {}
    for name, dtype in {"float32": torch.float32, "bfloat16": torch.bfloat16}.items():
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        rates[name] = 2 * size**3 / fastest(functools.partial(torch.matmul, left, right))
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    return Ceilings(rates, 2 * source.nbytes / fastest(lambda: target.copy_(source)))


def fastest(do: Callable[[], object], times: int = 7) -> float:
    """Seconds of the fastest of so many calls, after one to warm up: a ceiling is what is possible."""
    do()
    seconds = []
    for _ in range(times):
        wait_for_device()
        start = time.perf_counter()
        do()
        wait_for_device()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
