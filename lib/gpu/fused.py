"""All layers between two convolutions as one operation on a GPU: two kernels forward, two backward.

    y = [ReLU] ([residual +] dropout(BN([ReLU] x)))

covers every ordering of the study (Fig. 2b) and the baseline (Fig. 2a): one pass over the maps computes the channel
statistics, another applies them; backward likewise. All sums are in float32, whatever the maps' precision, and in a
fixed order: equal inputs give equal bits. Dropout's masks are not stored but regenerated from the same seed.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import nn

from lib.gpu import fused_kernels as kernels

TILE = 4096  # values per program at a time
WARPS = 4  # per program
PROGRAMS = 512  # at most, that sum statistics in parallel
PHILOX_ROUNDS = 7  # of the generator's 10; 7 pass all of BigCrush (Salmon et al. 2011, Table 2)


class Drawn(NamedTuple):
    """What decides which values dropout zeroes."""

    p: float  # the probability, 0 <= p < 1
    seed: torch.Tensor  # (1,) int64, on the GPU, where each replay of a captured step finds a new one
    layer: int  # a number unique to this layer in the network

    def arguments(self) -> tuple[torch.Tensor, int, int, float]:
        """As the kernels take them: seed, layer, the smallest 32 bits that are kept, the scale of kept values."""
        return self.seed, self.layer, min(round(self.p * 2**32), 2**32 - 1), 1 / (1 - self.p)


class Normalised(torch.autograd.Function):
    """See normalised()."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight, bias, added, norm, counter, drawn, relu, relu_after):
        channels = x.shape[1]
        rows, tile = x.numel() // channels, TILE // channels
        y, saved = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        programs, chunk, partial = _split(x, rows, channels)
        kernels.statistics[(programs,)](
            x, partial, counter, saved, norm.running_mean, norm.running_var, norm.momentum, norm.eps, rows, chunk,
            relu, channels, tile, num_warps=WARPS,
        )  # fmt: skip
        switches = (relu, drawn.p > 0, relu_after, channels, tile, PHILOX_ROUNDS)
        kernels.forward[(triton.cdiv(rows, tile),)](
            x, y, x if added is None else added, saved, weight, bias, *drawn.arguments(), rows,
            *switches, added is not None, num_warps=WARPS,
        )  # fmt: skip
        ctx.save_for_backward(x, y if relu_after else None, weight, saved)
        ctx.counter, ctx.drawn, ctx.switches, ctx.adds = counter, drawn.arguments(), switches, added is not None
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor):
        x, y, weight, saved = ctx.saved_tensors
        relu_after, channels, tile = ctx.switches[2:5]
        rows = x.numel() // channels
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, (dweight, dbias) = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        dadded = (torch.empty_like(x) if relu_after else dy) if ctx.adds else None
        programs, chunk, partial = _split(x, rows, channels)
        y = x if y is None else y
        kernels.gradient_sums[(programs,)](
            x, y, dy, partial, ctx.counter, saved, dweight, dbias, *ctx.drawn, rows, chunk,
            *ctx.switches, num_warps=WARPS,
        )  # fmt: skip
        kernels.backward[(triton.cdiv(rows, tile),)](
            x, y, dy, dx, dx if dadded is None else dadded, saved, weight, dweight, dbias, *ctx.drawn, rows,
            *ctx.switches, ctx.adds, num_warps=WARPS,
        )  # fmt: skip
        return dx, dweight, dbias, dadded, None, None, None, None, None


def _split(x: torch.Tensor, rows: int, channels: int) -> tuple[int, int, torch.Tensor]:
    """How many programs to split the rows among, how many rows each takes, and a buffer for their sums."""
    chunk = max(TILE // channels, triton.cdiv(rows, PROGRAMS))
    programs = triton.cdiv(rows, chunk)
    return programs, chunk, x.new_empty(programs, 2, channels, dtype=torch.float32)


def normalised(
    x: torch.Tensor,
    norm: nn.BatchNorm2d,
    counter: torch.Tensor,
    drawn: Drawn,
    *,
    relu: bool = False,
    added: torch.Tensor | None = None,
    relu_after: bool = False,
) -> torch.Tensor:
    """y = [ReLU] ([added +] dropout(BN([ReLU] x))) in train mode: by batch statistics, updating the running ones.

    Shapes: x, added and y (N, C, H, W), C a power of two from 4 to 4,096, fewer than 2^31 values, at least two rows
    (N H W). x is converted to channels-last, y returned so. Sums are in float32 for any type.
    `counter` (1 value, int32) must be zero, and is afterwards; no other stream may use it meanwhile.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    added = None if added is None else added.contiguous(memory_format=torch.channels_last)
    return Normalised.apply(x, norm.weight, norm.bias, added, norm, counter, drawn, relu, relu_after)


def trial(device: torch.device) -> None:
    """Run the kernels once on tiny maps; raises what Triton raises if it fails."""
    x = torch.ones(1, 16, 4, 4, device=device, requires_grad=True)
    counter, seed = torch.zeros(1, dtype=torch.int32, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    normalised(x, nn.BatchNorm2d(16).to(device), counter, Drawn(0.5, seed, 0), relu=True).sum().backward()
