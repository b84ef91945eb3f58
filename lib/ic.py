"""The Independent-Component layer (Chen et al. 2019; the 2021 study, Sec. 2 and Fig. 1b)."""

import torch
from torch import nn


class IC(nn.Sequential):
    """Batch normalisation, then dropout: normalised and decorrelated activations for the weight layer beside it.

    Shapes: (N, C, H, W) -> (N, C, H, W).

    In train mode each channel is normalised by the batch's own mean and variance, the running statistics move, and
    each value is then zeroed with probability p, independently; the values kept are scaled by 1/(1-p).
    In eval mode the running statistics normalise and nothing is dropped: the layer is deterministic.

    Raises ValueError unless 0 <= p < 1.
    """

    def __init__(self, channels: int, p: float) -> None:
        if not 0 <= p < 1:  # nn.Dropout would accept 1 and NaN
            raise ValueError(f"dropout probability {p} is not in [0, 1)")
        super().__init__(nn.BatchNorm2d(channels), nn.Dropout(p))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        normalise, drop = self
        return drop(normalise(images))
