"""Convolutions' weights cast to a lower precision all at once; autocast launches a kernel for each, both ways."""

from typing import Any

import torch
from torch import nn


class Cast(torch.autograd.Function):
    """Casts tensors to a lower precision, and their gradients back to float32."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        low = [torch.empty_like(each, dtype=dtype) for each in tensors]
        torch._foreach_copy_(low, tensors)
        return tuple(low)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        whole = [torch.empty_like(each, dtype=torch.float32) for each in gradients]
        torch._foreach_copy_(whole, gradients)
        return None, *whole


def forward(model: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The model's output under autocast, with its convolutions' weights cast beforehand; same values."""
    convolutions = ((name, each) for name, each in model.named_modules() if isinstance(each, nn.Conv2d))
    weights = {f"{name}.weight".lstrip("."): each.weight for name, each in convolutions}
    if not weights:
        return model(images)
    low = Cast.apply(dtype, *weights.values())
    return torch.func.functional_call(model, dict(zip(weights, low, strict=True)), (images,))
