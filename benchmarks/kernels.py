"""How long our GPU kernels take, against PyTorch's, in microseconds per call: on one stream, and on four at once.

Forward and backward, on the maps of a stage of a basic network at batch 64, in bfloat16. PyTorch too is restricted to
deterministic algorithms, as in training: its convolutions might be faster without. Most of the time goes to compiling.
"""

import argparse
from collections.abc import Callable

import pandas as pd
import torch
from torch import nn

from benchmarks.ceilings import fastest
from benchmarks.contenders import BATCH_SIZE, DROPOUT_P
from lib.errors import BadInput, errors_exit
from lib.machine.device import make_deterministic
from lib.report.markdown import table
from lib.words import counted

STAGES = {16: 32, 32: 16, 64: 8}  # channels: side in pixels
CALLS, STREAMS, REPEATS = 20, 4, 5  # calls per captured graph, graphs side by side, replays of each
Operation = Callable[[], object]


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m benchmarks.kernels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with errors_exit("benchmarks"):
        if not torch.cuda.is_available():
            raise BadInput("kernels are measured on a GPU, and PyTorch sees none here")
        make_deterministic()
        rows = []
        for channels in STAGES:
            for name, ours, theirs in (
                ("3x3 convolution", our_convolution, pytorchs_convolution),
                ("ReLU, BN, dropout", our_unit, pytorchs_unit),
            ):
                times = {
                    f"{whose}, {counted(streams, 'stream')}": f"{microseconds(make, channels, streams):.1f}"
                    for whose, make in (("ours", ours), ("PyTorch's", theirs))
                    for streams in (1, STREAMS)
                }
                rows.append({"layers": name, "channels": str(channels), **times})
        print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}\n")
        print(table(pd.DataFrame(rows), names=1))


def maps(images: int, channels: int, side: int) -> torch.Tensor:
    values = torch.randn(images, channels, side, side, device="cuda").to(torch.bfloat16)
    return values.to(memory_format=torch.channels_last).requires_grad_()


def our_convolution(channels: int) -> Operation:
    from lib.gpu.convolved import convolved

    return _convolution(channels, convolved)


def pytorchs_convolution(channels: int) -> Operation:
    return _convolution(channels, lambda x, weights: nn.functional.conv2d(x, weights, padding=1))


def _convolution(channels: int, do: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Operation:
    x, dy = (maps(BATCH_SIZE, channels, STAGES[channels]) for _ in range(2))
    weights = maps(channels, channels, 3)
    return lambda: torch.autograd.grad(do(x, weights), (x, weights), dy)


def our_unit(channels: int) -> Operation:
    from lib.gpu.fused import Drawn, normalised

    norm = nn.BatchNorm2d(channels).cuda()
    counter, seed = (torch.zeros(1, dtype=dtype, device="cuda") for dtype in (torch.int32, torch.int64))
    return _unit(norm, lambda x: normalised(x, norm, counter, Drawn(DROPOUT_P, seed, 0), relu=True))


def pytorchs_unit(channels: int) -> Operation:
    norm = nn.BatchNorm2d(channels).cuda()
    norm.num_batches_tracked = None  # with our kernels, counted once for the whole network
    return _unit(norm, nn.Sequential(nn.ReLU(), norm, nn.Dropout(DROPOUT_P)))


def _unit(norm: nn.BatchNorm2d, do: Callable[[torch.Tensor], torch.Tensor]) -> Operation:
    x, dy = (maps(BATCH_SIZE, norm.num_features, STAGES[norm.num_features]) for _ in range(2))
    return lambda: torch.autograd.grad(do(x), (x, norm.weight, norm.bias), dy)


def microseconds(make: Callable[[int], Operation], channels: int, streams: int) -> float:
    """Of one call, at best: captured and replayed, to exclude Python's overhead. Every stream has its own tensors."""
    captures = [captured(make, channels) for _ in range(streams)]

    def replay() -> None:
        for _ in range(REPEATS):
            for stream, graph in captures:
                with torch.cuda.stream(stream):
                    graph.replay()

    return fastest(replay) / (REPEATS * CALLS * streams) * 1e6


def captured(make: Callable[[int], Operation], channels: int) -> tuple[torch.cuda.Stream, torch.cuda.CUDAGraph]:
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        do = make(channels)
        do()  # compiles, and creates what is created once
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(CALLS):
                do()
    return stream, graph


if __name__ == "__main__":
    main()
