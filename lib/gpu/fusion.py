"""Our own Triton kernels on a GPU, in train mode: what they replace, and when they are used.

They compute everything between two convolutions (lib/gpu/fused.py), and the convolutions for which cuDNN is slow
(lib/gpu/convolved.py).

PyTorch launches kernels per layer: around each convolution of these networks about ten, too small to fill a GPU.
Results are the same up to rounding; dropout's draws differ, not their distribution.
"""

import collections
import functools
import os
import sys
from typing import Any

import torch
from torch import nn

from lib.ic import IC
from lib.machine.failures import is_of_memory

SWITCH = "IC_FUSE_LAYERS"  # environment variable; 0: PyTorch's own kernels


@functools.cache
def works() -> bool:
    """Whether to fuse layers on this process's GPU; says so, once, if that is wanted and Triton fails."""
    if os.environ.get(SWITCH, "1") == "0":
        return False
    try:
        from lib.gpu import convolved, fused

        for kernels in (fused, convolved):
            kernels.trial(torch.device("cuda"))
    except Exception as error:  # no Triton, no C compiler for it, an unknown GPU: whatever prevents it
        if is_of_memory(error):
            raise  # it is not Triton's fault, and passes
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        print(f"train: fusing layers failed ({reason}); training goes on layer by layer, slower", file=sys.stderr)
        return False
    return True


class Pass:
    """One forward pass of a network in train mode, fusing the layers it goes through."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
        torch._foreach_add_([norm.get_buffer("num_batches_tracked") for norm in norms], 1)
        self.seed = torch.randint(2**62, (1,), device=device)  # of all dropout; layer numbers make the draws differ
        self.counters = enumerate(torch.zeros(len(norms), dtype=torch.int32, device=device))

    def through(self, maps: torch.Tensor, *layers: nn.Module | torch.Tensor) -> torch.Tensor:
        """Maps (N, C, H, W) after these layers, fused or one by one; a tensor among them is added."""
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
        from lib.gpu import convolved

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
        from lib.gpu import fused

        norm, p = (layer.normalise, layer.drop.p) if isinstance(layer, IC) else (layer, 0.0)
        number, counter = next(self.counters)
        drawn = fused.Drawn(p, self.seed, number)
        return fused.normalised(maps, norm, counter, drawn, relu=relu, added=added, relu_after=relu_after)
