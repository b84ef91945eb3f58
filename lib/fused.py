"""What stands between two convolutions, as one operation on a GPU: two kernels forward, two backward.

    y = [ReLU] ([residual +] dropout(BN([ReLU] x)))

covers every ordering of the study (Fig. 2b) and the baseline (Fig. 2a): one pass over the maps gathers the channels'
statistics, another applies them; backward likewise. All sums are in float32, whatever the precision of the maps, and
in a fixed order: the same input gives the same bits. Dropout's draws are not kept but drawn anew, from the same seed.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import nn

TILE = 4096  # values that a program holds at a time
WARPS = 4  # of a program
PROGRAMS = 512  # at most, that gather statistics side by side
PHILOX_ROUNDS = 7  # of the generator's 10; 7 pass all of BigCrush (Salmon et al. 2011, Table 2)


@triton.jit
def _tile(pointer, row, inside, C: tl.constexpr):
    """Values (rows, C) of maps in memory order, as float32; zero outside."""
    at = row[:, None] * C + tl.arange(0, C)[None, :]
    return tl.load(pointer + at, mask=inside[:, None], other=0.0).to(tl.float32)


@triton.jit
def _rectified(values):
    return tl.where(values < 0, 0.0, values)  # a NaN stays one, as in PyTorch


@triton.jit
def _kept(seed, layer, row, least, C: tl.constexpr, ROUNDS: tl.constexpr):
    """Which values (rows, C) dropout keeps: those whose 32 random bits are `least` or more."""
    quads = row[:, None] * (C // 4) + tl.arange(0, C // 4)[None, :]
    a, b, c, d = tl.randint4x(tl.load(seed) + layer, quads, n_rounds=ROUNDS)
    bits = tl.interleave(tl.interleave(a, b), tl.interleave(c, d))
    return bits.to(tl.uint32, bitcast=True) >= least.to(tl.uint32)


@triton.jit
def _is_last(counter):
    """Whether this program is the last to come here; what the others have stored before is then there to be read."""
    tl.debug_barrier()
    last = tl.atomic_add(counter, 1) == tl.num_programs(0) - 1
    if last:
        tl.store(counter, 0)
    return last


@triton.jit(do_not_specialize=["rows", "chunk"])
def _statistics(
    x, partial, counter, saved, running_mean, running_var, momentum, eps, rows, chunk,
    RELU: tl.constexpr, C: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Mean and 1/std of each channel -> saved (2, C); the running statistics move."""
    channel = tl.arange(0, C)
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    mean = tl.zeros((C,), tl.float32)
    squares = tl.zeros((C,), tl.float32)  # of the distances from the mean (Chan et al. 1979)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        values = _tile(x, row, row < end, C)
        if RELU:
            values = _rectified(values)
        count = tl.minimum(ROWS, end - start).to(tl.float32)
        before = (start - first).to(tl.float32)
        here = tl.sum(values, 0) / count
        distance = tl.where((row < end)[:, None], values - here[None, :], 0.0)
        apart = here - mean
        mean += apart * (count / (before + count))
        squares += tl.sum(distance * distance, 0) + apart * apart * (before * count / (before + count))
    at = partial + tl.program_id(0) * (2 * C) + channel
    tl.store(at, mean)
    tl.store(at + C, squares)
    if _is_last(counter):
        _all_statistics(partial, saved, running_mean, running_var, momentum, eps, rows, chunk, C, ROWS)


@triton.jit
def _all_statistics(
    partial, saved, running_mean, running_var, momentum, eps, rows, chunk, C: tl.constexpr, ROWS: tl.constexpr
):
    channel = tl.arange(0, C)
    mean = tl.zeros((C,), tl.float32)
    for start in range(0, tl.num_programs(0), ROWS):
        program = start + tl.arange(0, ROWS)
        inside = program < tl.num_programs(0)
        count = tl.minimum(rows - program * chunk, chunk).to(tl.float32)
        means = tl.load(
            partial + program[:, None] * (2 * C) + channel[None, :], inside[:, None], 0.0, cache_modifier=".cg"
        )
        mean += tl.sum(means * count[:, None], 0)
    mean /= rows
    squares = tl.zeros((C,), tl.float32)
    for start in range(0, tl.num_programs(0), ROWS):
        program = start + tl.arange(0, ROWS)
        inside = program < tl.num_programs(0)
        count = tl.minimum(rows - program * chunk, chunk).to(tl.float32)
        at = partial + program[:, None] * (2 * C) + channel[None, :]
        means = tl.load(at, inside[:, None], 0.0, cache_modifier=".cg")
        more = tl.load(at + C, inside[:, None], 0.0, cache_modifier=".cg")
        apart = means - mean[None, :]
        squares += tl.sum(tl.where(inside[:, None], more + apart * apart * count[:, None], 0.0), 0)
    tl.store(saved + channel, mean)
    tl.store(saved + C + channel, 1 / tl.sqrt(squares / rows + eps))
    moved = tl.load(running_mean + channel)
    tl.store(running_mean + channel, moved + momentum * (mean - moved))
    moved = tl.load(running_var + channel)
    tl.store(running_var + channel, moved + momentum * (squares / (rows - 1) - moved))


@triton.jit(do_not_specialize=["layer", "least", "rows"])
def _forward(
    x, y, added, saved, weight, bias, seed, layer, least, scale, rows,
    RELU: tl.constexpr, DROPS: tl.constexpr, RELU_AFTER: tl.constexpr, ADDS: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    channel = tl.arange(0, C)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    values = _tile(x, row, inside, C)
    if RELU:
        values = _rectified(values)
    factor = tl.load(saved + C + channel) * tl.load(weight + channel)
    values = (values - tl.load(saved + channel)[None, :]) * factor[None, :] + tl.load(bias + channel)[None, :]
    if DROPS:
        values = tl.where(_kept(seed, layer, row, least, C, ROUNDS), values * scale, 0.0)
    if ADDS:
        values += _tile(added, row, inside, C)
    if RELU_AFTER:
        values = _rectified(values)
    tl.store(y + row[:, None] * C + channel[None, :], values.to(y.dtype.element_ty), mask=inside[:, None])


@triton.jit
def _gradient(
    y, dy, seed, layer, least, scale, row, inside,
    DROPS: tl.constexpr, RELU_AFTER: tl.constexpr, C: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The gradients (rows, C) of the sum with the added, and of what the normalisation gave."""
    of_sum = _tile(dy, row, inside, C)
    if RELU_AFTER:
        of_sum = tl.where(_tile(y, row, inside, C) > 0, of_sum, 0.0)
    of_normalised = of_sum
    if DROPS:
        of_normalised = tl.where(_kept(seed, layer, row, least, C, ROUNDS), of_sum * scale, 0.0)
    return of_sum, of_normalised


@triton.jit(do_not_specialize=["layer", "least", "rows", "chunk"])
def _gradient_sums(
    x, y, dy, partial, counter, saved, dweight, dbias, seed, layer, least, scale, rows, chunk,
    RELU: tl.constexpr, DROPS: tl.constexpr, RELU_AFTER: tl.constexpr, ADDS: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    """The gradients of weight and bias (C,): sums over all rows."""
    channel = tl.arange(0, C)
    first = tl.program_id(0) * chunk
    end = tl.minimum(first + chunk, rows)
    mean, per_std = tl.load(saved + channel), tl.load(saved + C + channel)
    of_bias = tl.zeros((C,), tl.float32)
    of_weight = tl.zeros((C,), tl.float32)
    for start in range(first, end, ROWS):
        row = start + tl.arange(0, ROWS)
        values = _tile(x, row, row < end, C)
        if RELU:
            values = _rectified(values)
        _, gradient = _gradient(y, dy, seed, layer, least, scale, row, row < end, DROPS, RELU_AFTER, C, ROUNDS)
        of_bias += tl.sum(gradient, 0)
        of_weight += tl.sum(gradient * (values - mean[None, :]) * per_std[None, :], 0)
    at = partial + tl.program_id(0) * (2 * C) + channel
    tl.store(at, of_bias)
    tl.store(at + C, of_weight)
    if _is_last(counter):
        of_bias = tl.zeros((C,), tl.float32)
        of_weight = tl.zeros((C,), tl.float32)
        for start in range(0, tl.num_programs(0), ROWS):
            program = start + tl.arange(0, ROWS)
            inside = (program < tl.num_programs(0))[:, None]
            ats = partial + program[:, None] * (2 * C) + channel[None, :]
            of_bias += tl.sum(tl.load(ats, inside, 0.0, cache_modifier=".cg"), 0)
            of_weight += tl.sum(tl.load(ats + C, inside, 0.0, cache_modifier=".cg"), 0)
        tl.store(dbias + channel, of_bias)
        tl.store(dweight + channel, of_weight)


@triton.jit(do_not_specialize=["layer", "least", "rows"])
def _backward(
    x, y, dy, dx, dadded, saved, weight, dweight, dbias, seed, layer, least, scale, rows,
    RELU: tl.constexpr, DROPS: tl.constexpr, RELU_AFTER: tl.constexpr, ADDS: tl.constexpr,
    C: tl.constexpr, ROWS: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    channel = tl.arange(0, C)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
    at = row[:, None] * C + channel[None, :]
    raw = _tile(x, row, inside, C)
    values = raw
    if RELU:
        values = _rectified(values)
    of_sum, gradient = _gradient(y, dy, seed, layer, least, scale, row, inside, DROPS, RELU_AFTER, C, ROUNDS)
    if RELU_AFTER and ADDS:  # else the gradient of the added is that of the sum as it is
        tl.store(dadded + at, of_sum.to(dadded.dtype.element_ty), mask=inside[:, None])
    per_std = tl.load(saved + C + channel)
    normalised = (values - tl.load(saved + channel)[None, :]) * per_std[None, :]
    mean_gradient = tl.load(dbias + channel) / rows
    slope = tl.load(dweight + channel) / rows
    factor = per_std * tl.load(weight + channel)
    gradient = (gradient - mean_gradient[None, :] - normalised * slope[None, :]) * factor[None, :]
    if RELU:
        gradient = tl.where(raw > 0, gradient, 0.0)
    tl.store(dx + at, gradient.to(dx.dtype.element_ty), mask=inside[:, None])


class Drawn(NamedTuple):
    """What decides which values dropout zeroes."""

    p: float  # the probability, 0 <= p < 1
    seed: torch.Tensor  # (1,) int64, on the GPU: a recorded step reads there what is new at each replay
    layer: int  # a number that no other layer of the network has

    def arguments(self) -> tuple[torch.Tensor, int, int, float]:
        """Seed, layer, the least 32 bits that are kept, the scale of what is kept: as the kernels take them."""
        return self.seed, self.layer, min(round(self.p * 2**32), 2**32 - 1), 1 / (1 - self.p)


class Normalised(torch.autograd.Function):
    """See normalised()."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight, bias, added, norm, counter, drawn, relu, relu_after):
        channels = x.shape[1]
        rows, tile = x.numel() // channels, TILE // channels
        y, saved = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        programs, chunk, partial = _split(x, rows, channels)
        _statistics[(programs,)](
            x, partial, counter, saved, norm.running_mean, norm.running_var, norm.momentum, norm.eps, rows, chunk,
            relu, channels, tile, num_warps=WARPS,
        )  # fmt: skip
        switches = (relu, drawn.p > 0, relu_after, added is not None, channels, tile, PHILOX_ROUNDS)
        _forward[(triton.cdiv(rows, tile),)](
            x,
            y,
            x if added is None else added,
            saved,
            weight,
            bias,
            *drawn.arguments(),
            rows,
            *switches,
            num_warps=WARPS,
        )
        ctx.save_for_backward(x, y if relu_after else None, weight, saved)
        ctx.counter, ctx.drawn, ctx.switches = counter, drawn.arguments(), switches
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor):
        x, y, weight, saved = ctx.saved_tensors
        relu_after, adds, channels, tile = ctx.switches[2:6]
        rows = x.numel() // channels
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx, (dweight, dbias) = torch.empty_like(x), x.new_empty(2, channels, dtype=torch.float32)
        dadded = (torch.empty_like(x) if relu_after else dy) if adds else None
        programs, chunk, partial = _split(x, rows, channels)
        y = x if y is None else y
        _gradient_sums[(programs,)](
            x,
            y,
            dy,
            partial,
            ctx.counter,
            saved,
            dweight,
            dbias,
            *ctx.drawn,
            rows,
            chunk,
            *ctx.switches,
            num_warps=WARPS,
        )
        _backward[(triton.cdiv(rows, tile),)](
            x, y, dy, dx, dx if dadded is None else dadded, saved, weight, dweight, dbias, *ctx.drawn, rows,
            *ctx.switches, num_warps=WARPS,
        )  # fmt: skip
        return dx, dweight, dbias, dadded, None, None, None, None, None


def _split(x: torch.Tensor, rows: int, channels: int) -> tuple[int, int, torch.Tensor]:
    """Into how many programs to split the rows, how many rows each takes, and room for what each finds."""
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
    """y = [ReLU] ([added +] dropout(BN([ReLU] x))) in train mode: the batch normalises, the running statistics move.

    Shapes: x, added and y (N, C, H, W), C a power of two from 4 to 4,096; x is taken, y given channels-last.
    `counter` (1 value, int32) is zero, and zero again afterwards; no other stream may use it meanwhile.
    """
    x = x.contiguous(memory_format=torch.channels_last)
    added = None if added is None else added.contiguous(memory_format=torch.channels_last)
    return Normalised.apply(x, norm.weight, norm.bias, added, norm, counter, drawn, relu, relu_after)


def trial(device: torch.device) -> None:
    """Raise whatever Triton raises where it does not work."""
    x = torch.ones(1, 16, 4, 4, device=device, requires_grad=True)
    counter, seed = torch.zeros(1, dtype=torch.int32, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    normalised(x, nn.BatchNorm2d(16).to(device), counter, Drawn(0.5, seed, 0), relu=True).sum().backward()
