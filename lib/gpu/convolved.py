"""3x3 convolutions of few channels in bfloat16, forward and backward: where cuDNN leaves most of a GPU idle.

Each is three matrix products, one per kernel row, accumulated in float32: three adjacent pixels are 3 C contiguous
values in memory. The weight gradient is summed over pixels in parts, then over the parts in a fixed order.
"""

from typing import Any, TypeGuard

import torch
import triton
import triton.language as tl
from torch import nn

# By channels. MAPS: pixels per program, warps. WEIGHTS: pixels per iteration, parts, warps.
# The fastest of those tried on an H200, beside three other streams doing the same.
MAPS = {16: (256, 4), 32: (128, 4), 64: (64, 4)}
WEIGHTS = {16: (128, 128, 4), 32: (64, 64, 4), 64: (64, 16, 8)}


@triton.jit
def _neighbours(maps, pixel, last, ROW, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr):
    """Each pixel's three neighbours (rows, 3 C) in the row above (-1), its own (0) or below (1), in memory order.

    Zero outside the image and from `last` on; so is a fourth, there because Triton's sizes are powers of two.
    """
    column = tl.arange(0, 4 * C)[None, :]
    h, w = (pixel // W % H + ROW)[:, None], (pixel % W)[:, None] + column // C - 1
    inside = (pixel < last)[:, None] & (h >= 0) & (h < H) & (w >= 0) & (w < W) & (column < 3 * C)
    return tl.load(maps + ((pixel + ROW * W - 1) * C)[:, None] + column, mask=inside, other=0.0)


@triton.jit
def _maps(
    x, weights, y, pixels, H: tl.constexpr, W: tl.constexpr, BACK: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr
):
    """y (pixels, C): the convolution of x, or with BACK its transpose, which propagates a gradient."""
    pixel = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column, channel = tl.arange(0, 4 * C)[:, None], tl.arange(0, C)[None, :]
    total = tl.zeros((ROWS, C), tl.float32)
    for row in tl.static_range(3):
        if BACK:
            at = column % C * (9 * C) + (8 - 3 * row - column // C) * C + channel
        else:
            at = channel * (9 * C) + 3 * row * C + column
        kernel = tl.load(weights + at, mask=column < 3 * C, other=0.0)
        total = tl.dot(_neighbours(x, pixel, pixels, row - 1, H, W, C), kernel, total)
    at = pixel[:, None] * C + channel
    tl.store(y + at, total.to(y.dtype.element_ty), mask=(pixel < pixels)[:, None])


@triton.jit
def _weight_parts(x, dy, parts, pixels, chunk, H: tl.constexpr, W: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr):
    """parts (programs, C, 3, 3 C): the gradient of one kernel row, over a share of the pixels."""
    row = tl.program_id(1)
    first = tl.program_id(0) * chunk
    last = tl.minimum(first + chunk, pixels)
    channel, column = tl.arange(0, C), tl.arange(0, 4 * C)[None, :]
    total = tl.zeros((C, 4 * C), tl.float32)
    for start in range(first, last, ROWS):
        pixel = start + tl.arange(0, ROWS)
        at = pixel[:, None] * C + channel[None, :]
        gradient = tl.load(dy + at, mask=(pixel < last)[:, None], other=0.0)
        total = tl.dot(tl.trans(gradient), _neighbours(x, pixel, last, row - 1, H, W, C), total)
    at = parts + tl.program_id(0) * (9 * C * C) + channel[:, None] * (9 * C) + row * (3 * C) + column
    tl.store(at, total, mask=column < 3 * C)


@triton.jit
def _weight_sums(parts, dweights, SIZE: tl.constexpr, PARTS: tl.constexpr, VALUES: tl.constexpr):
    value = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    total = tl.sum(tl.load(parts + tl.arange(0, PARTS)[:, None] * SIZE + value[None, :]), 0)
    tl.store(dweights + value, total.to(dweights.dtype.element_ty))


class Convolved(torch.autograd.Function):
    """See convolved()."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weights)
        return _convolution(x, weights, back=False)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weights = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        return _convolution(dy, weights, back=True), _weights_gradient(x, dy, weights)


def _convolution(x: torch.Tensor, weights: torch.Tensor, *, back: bool) -> torch.Tensor:
    n, c, h, w = x.shape
    rows, warps = MAPS[c]
    y = torch.empty_like(x)
    _maps[(triton.cdiv(n * h * w, rows),)](x, weights, y, n * h * w, h, w, back, c, rows, num_warps=warps)
    return y


def _weights_gradient(x: torch.Tensor, dy: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    rows, count, warps = WEIGHTS[c]
    parts = x.new_empty(count, 9 * c * c, dtype=torch.float32)
    chunk = triton.cdiv(n * h * w, count)  # with few pixels some parts get none: they are zero
    _weight_parts[(count, 3)](x, dy, parts, n * h * w, chunk, h, w, c, rows, num_warps=warps)
    dweights = torch.empty_like(weights)
    _weight_sums[(9 * c * c // 64,)](parts, dweights, 9 * c * c, count, 64)
    return dweights


def can(layer: nn.Module, x: torch.Tensor) -> TypeGuard[nn.Conv2d]:
    """Whether convolved() can be used for this layer and maps."""
    return (
        isinstance(layer, nn.Conv2d)
        and x.dtype == layer.weight.dtype == torch.bfloat16
        and layer.in_channels == layer.out_channels in MAPS
        and (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
        and (layer.dilation, layer.padding_mode, layer.groups) == ((1, 1), "zeros", 1)
        and layer.bias is None
    )


def convolved(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The convolution of maps (N, C, H, W) with weights (C, C, 3, 3), padded by 1, stride 1.

    All are made, and returned, channels-last. C is 16, 32 or 64; x and weights share a type, bfloat16 or float16.
    """
    return Convolved.apply(*(each.contiguous(memory_format=torch.channels_last) for each in (x, weights)))


def trial(device: torch.device) -> None:
    """Run the kernels once on tiny maps; raises what Triton raises if it fails."""
    x, weights = (torch.ones(*shape, device=device, dtype=torch.bfloat16) for shape in ((1, 16, 4, 4), (16, 16, 3, 3)))
    convolved(x, weights.requires_grad_()).sum().backward()
