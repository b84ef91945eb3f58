"""Dropout (Srivastava et al. 2014): one distribution on every device, and fast on a CPU.

PyTorch's CPU dropout draws a random number per value, one after the other: with p = 0.05 beside every layer of a deep
net, a third of a training step or more. Which values are dropped is a Bernoulli process, so the gaps between them are
geometric: drawing the gaps instead takes p times as many numbers, with the same distribution.
"""

import math

import torch
from torch import nn


class Dropout(nn.Dropout):
    """In train mode each value is zeroed with probability p, independently; those kept are scaled by 1/(1-p).

    Shapes: (N, C, H, W) -> the same. In eval mode nothing changes.
    Raises ValueError unless 0 <= p < 1.
    """

    def __init__(self, p: float) -> None:
        if not 0 <= p < 1:  # nn.Dropout would accept 1 and NaN
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        super().__init__(p)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        if self.by_gaps(maps):
            return zeroed(maps / (1 - self.p), self.p)
        return super().forward(maps)

    def by_gaps(self, maps: torch.Tensor) -> bool:
        """Whether to drop values here by drawing gaps: on a GPU, a number per value is faster."""
        return self.training and self.p > 0 and maps.device.type == "cpu"


def zeroed(maps: torch.Tensor, p: float) -> torch.Tensor:
    """`maps` (N, C, H, W), in place if channels-last, each zeroed with probability 0 < p < 1; unscaled."""
    maps = maps.contiguous(memory_format=torch.channels_last)
    return ZeroAt.apply(maps, dropped_positions(maps.numel(), p))


def dropped_positions(count: int, p: float) -> torch.Tensor:
    """Where a Bernoulli process of probability 0 < p < 1 strikes among `count` values: int64, ascending.

    The gap before each strike is geometric: P(gap = k) = p (1-p)^k, like floor(ln(u) / ln(1-p)) for uniform u in (0, 1)
    (Devroye 1986, Sec. X.2). Drawn from PyTorch's global generator, with 32 bits per gap: the probability of each
    length is accurate to 2^-32.
    """
    positions = _strikes(count, p)
    while positions[-1] < count - 1:  # the process may strike again before the end
        reached = int(positions[-1]) + 1
        positions = torch.cat([positions, _strikes(count - reached, p) + reached])
    return positions[: torch.searchsorted(positions, count)]


def _strikes(count: int, p: float) -> torch.Tensor:
    """The first strikes from 0 on: at least eight, and enough to nearly always reach `count`."""
    expected = count * p
    gaps = _uniform(int(expected + 6 * math.sqrt(expected) + 8)).log_().mul_(1 / math.log1p(-p)).clamp_(max=count)
    return gaps.to(torch.int64).add_(1).cumsum_(0).sub_(1)


def _uniform(at_least: int) -> torch.Tensor:
    """`at_least` numbers, or one more: float64, uniform over the midpoints of 2^32 equal parts of (0, 1).

    Two are made of 64 random bits: PyTorch's generator takes as long for 64 as for the 53 of one torch.rand.
    """
    bits = torch.empty((at_least + 1) // 2, dtype=torch.int64).random_(-(2**63), None).view(torch.int32)
    return bits.to(torch.float64).add_(2**31 + 0.5).mul_(2**-32)


class ZeroAt(torch.autograd.Function):
    """Zero a channels-last tensor at positions counted in memory order; the gradient is zero at the same places."""

    @staticmethod
    def forward(ctx, maps: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        ctx.mark_dirty(maps)
        ctx.save_for_backward(positions)
        _in_memory_order(maps).index_fill_(0, positions, 0)
        return maps

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[no-untyped-def]
        (positions,) = ctx.saved_tensors
        gradient = gradient.clone(memory_format=torch.channels_last)  # the short connection may share it
        _in_memory_order(gradient).index_fill_(0, positions, 0)
        return gradient, None


def _in_memory_order(maps: torch.Tensor) -> torch.Tensor:
    """A flat view of a channels-last tensor."""
    return maps.permute(0, 2, 3, 1).view(-1)
