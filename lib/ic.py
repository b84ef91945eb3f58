"""The Independent-Component layer (Chen et al. 2019; the 2021 study, Sec. 2 and Fig. 1b)."""

import torch
from torch import nn
from torch.nn import functional

from lib.dropout import Dropout, zeroed


class IC(nn.Module):
    """Batch normalisation, then dropout, to give the weight layer beside it normalised and less dependent inputs.

    Shapes: (N, C, H, W) -> (N, C, H, W).

    In train mode each channel is normalised by the batch's mean and variance, the running statistics are updated, and
    each value is then zeroed with probability p, independently; the values kept are scaled by 1/(1-p).
    In eval mode the running statistics normalise and nothing is dropped: the layer is deterministic.

    Raises ValueError unless 0 <= p < 1.
    """

    def __init__(self, channels: int, p: float) -> None:
        super().__init__()
        self.normalise = nn.BatchNorm2d(channels)
        self.drop = Dropout(p)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.drop.by_gaps(images):  # in eval mode, on a GPU, or with p = 0
            return self.drop(self.normalise(images))
        return zeroed(self._normalised_and_scaled(images, 1 / (1 - self.drop.p)), self.drop.p)

    def _normalised_and_scaled(self, images: torch.Tensor, scale: float) -> torch.Tensor:
        """Batch normalisation with dropout's scale folded into its affine map: one pass fewer."""
        norm = self.normalise
        assert norm.num_batches_tracked is not None and norm.momentum is not None
        norm.num_batches_tracked.add_(1)
        return functional.batch_norm(
            images,
            norm.running_mean,
            norm.running_var,
            norm.weight * scale,
            norm.bias * scale,
            training=True,
            momentum=norm.momentum,
            eps=norm.eps,
        )
