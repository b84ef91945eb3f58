"""Our own Triton kernels on a GPU, in train mode: what they replace, and when they are used.

They do all that stands between two convolutions (lib/fused.py), and the convolutions that cuDNN is slow at
(lib/convolved.py).

PyTorch has kernels for each layer: beside every convolution of these networks some ten, each too small to fill a GPU.
What is computed is the same up to rounding; which values dropout zeroes is drawn otherwise.
"""

import collections
import functools
import os
import sys
from typing import Any

import torch
from torch import nn

from lib.ic import IC

SWITCH = "IC_FUSE_LAYERS"  # an environment variable; 0 keeps to PyTorch's own kernels


@functools.cache
def works() -> bool:
    """Whether layers are fused on this process's GPU; says so, once, where that is wanted and Triton fails."""
    if os.environ.get(SWITCH, "1") == "0":
        return False
    try:
        from lib import convolved, fused

        for kernels in (fused, convolved):
            kernels.trial(torch.device("cuda"))
    except torch.OutOfMemoryError:  # no fault of Triton's
        raise
    except Exception as error:  # no Triton, no C compiler for it, a GPU it does not know: whatever stops it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"train: fusing layers failed ({reason}); training goes on layer by layer, slower", file=sys.stderr)
        return False
    return True


class Pass:
    """One forward pass of a network in train mode, which fuses the layers it is taken through."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        torch._foreach_add_([norm.get_buffer("num_batches_tracked") for norm in norms], 1)
        self.seed = torch.randint(2**62, (1,), device=device)  # of all dropout; the layers' numbers make it differ
        self.counters = enumerate(torch.zeros(len(norms), dtype=torch.int32, device=device))

    def through(self, maps: torch.Tensor, *layers: nn.Module | torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) after all these layers, one by one or fused; a tensor among them is added."""
        rest = collections.deque(layers)

        def take(kind: Any) -> Any:
            """The next layer if it is of this kind, else None."""
            return rest.popleft() if rest and isinstance(rest[0], kind) else None

        while rest:
            relu, norm = take(nn.ReLU), take(IC | nn.BatchNorm2d)
            if norm is not None:
                added, relu_after = take(torch.Tensor), take(nn.ReLU)
                maps = self._normalised(maps, norm, relu=bool(relu), added=added, relu_after=bool(relu_after))
            else:
                maps = relu(maps) if relu else self._one(maps, rest.popleft())
        return maps

    @staticmethod
    def _one(maps: torch.Tensor, layer: nn.Module | torch.Tensor) -> torch.Tensor:
        from lib import convolved

        if isinstance(layer, torch.Tensor):
            return maps + layer
        return convolved.convolved(maps, layer.weight) if convolved.can(layer, maps) else layer(maps)

    def _normalised(
        self,
        maps: torch.Tensor,
        layer: IC | nn.BatchNorm2d,
        *,
        relu: bool,
        added: torch.Tensor | None,
        relu_after: bool,
    ) -> torch.Tensor:
        """Maps after a normalising layer and what is fused with it: a ReLU before, an addition and a ReLU after."""
        from lib import fused

        norm, p = (layer.normalise, layer.drop.p) if isinstance(layer, IC) else (layer, 0.0)
        number, counter = next(self.counters)
        drawn = fused.Drawn(p, self.seed, number)
        return fused.normalised(maps, norm, counter, drawn, relu=relu, added=added, relu_after=relu_after)
