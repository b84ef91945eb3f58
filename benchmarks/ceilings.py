"""The roofline: the least a network's training step must compute and move, and the most the device can."""

import functools
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.contenders import BATCH_SIZE, DROPOUT_P, Network, precisions
from benchmarks.record import Ceilings, Work
from benchmarks.stopwatch import wait_for_device
from lib.machine.device import threads_for
from lib.resnet import ResNet
from lib.training import PRECISIONS


def work(network: Network) -> Work:
    """What a training step needs, counted on PyTorch's meta device, which allocates no weights."""
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


def measured(device: torch.device, quick: bool) -> Ceilings:
    """Of the whole device: square matrix products, and a copy far larger than any cache (bytes read and written).

    With `quick`, small sizes only check that they run.
    """
    torch.set_num_threads(threads_for(None))
    size, elements = (8192, 1 << 28) if device.type == "cuda" else (2048, 1 << 26)
    if quick:
        size, elements = 256, 1 << 18
    rates = {}
    for name in precisions(device):
        left, right = (torch.randn(size, size, device=device).to(PRECISIONS[name]) for _ in range(2))
        rates[name] = 2 * size**3 / fastest(functools.partial(torch.matmul, left, right))
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    return Ceilings(rates, 2 * source.nbytes / fastest(lambda: target.copy_(source)))


def fastest(do: Callable[[], object], times: int = 7) -> float:
    """Seconds of the fastest of `times` calls, after a warm-up call: a ceiling is the best possible."""
    do()
    seconds = []
    for _ in range(times):
        wait_for_device()
        start = time.perf_counter()
        do()
        wait_for_device()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
