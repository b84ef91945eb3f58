"""What kernels of our own do on a GPU, in train mode: all that stands between two convolutions (lib/fused.py), and the
convolutions that cuDNN is slow at (lib/convolved.py).

PyTorch has kernels for each layer: beside every convolution of these networks some ten, each too small to fill a GPU.
What is computed is the same up to rounding; which values dropout zeroes is drawn otherwise.
"""

import functools
import os
import sys

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
    """One forward pass of a network in train mode, fusing the layers that it is led through."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        torch._foreach_add_([norm.get_buffer("num_batches_tracked") for norm in norms], 1)
        self.seed = torch.randint(2**62, (1,), device=device)  # of all dropout; the layers' numbers make it differ
        self.counters = enumerate(torch.zeros(len(norms), dtype=torch.int32, device=device))

    def through(self, maps: torch.Tensor, *layers: nn.Module | torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) after all these layers, one by one or fused; a tensor among them is added."""
        rest = list(layers)
        while rest:
            relu = isinstance(rest[0], nn.ReLU)
            norm = rest[relu] if len(rest) > relu else None
            if isinstance(norm, IC | nn.BatchNorm2d):
                del rest[: relu + 1]
                maps = self._normalised(maps, relu, norm, rest)
            else:
                maps = self._one(maps, rest.pop(0))
        return maps

    @staticmethod
    def _one(maps: torch.Tensor, layer: nn.Module | torch.Tensor) -> torch.Tensor:
        from lib import convolved

        if isinstance(layer, torch.Tensor):
            return maps + layer
        return convolved.convolved(maps, layer.weight) if convolved.can(layer, maps) else layer(maps)

    def _normalised(
        self, maps: torch.Tensor, relu: bool, layer: IC | nn.BatchNorm2d, rest: list[nn.Module | torch.Tensor]
    ) -> torch.Tensor:
        """Maps after a normalising layer and what can be fused with it of the rest, which loses that."""
        from lib import fused

        norm, p = (layer.normalise, layer.drop.p) if isinstance(layer, IC) else (layer, 0.0)
        added = next((each for each in rest[:1] if isinstance(each, torch.Tensor)), None)
        del rest[: added is not None]
        relu_after = bool(rest) and isinstance(rest[0], nn.ReLU)
        del rest[:relu_after]
        number, counter = next(self.counters)
        drawn = fused.Drawn(p, self.seed, number)
        return fused.normalised(maps, norm, counter, drawn, relu=relu, added=added, relu_after=relu_after)
