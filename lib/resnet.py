"""Deep thin residual networks for 32x32 images, in any ordering: unit -> block -> stage -> network.

He et al. 2015 (Sec. 4.2) for the family, the 2021 study (Sec. 2, Fig. 2b) for the orderings.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from lib.card import BASELINES
from lib.dropout import Dropout
from lib.gpu import fusion
from lib.ic import IC

STAGE_WIDTHS = (16, 32, 64)  # feature maps of the three stages, at 32x32, 16x16 and 8x8 (Sec. 2)

# A block's convolutions, one per unit: (kernel size, output maps in multiples of the stage's width) (Sec. 2).
BLOCKS: dict[str, tuple[tuple[int, int], ...]] = {
    "basic": ((3, 1), (3, 1)),
    "bottleneck": ((1, 1), (3, 1), (1, 4)),
}

# A unit's other layers: how to make each, given the number of channels and the dropout probability.
LAYERS: dict[str, Callable[[int, float], nn.Module]] = {
    "bn": lambda channels, p: nn.BatchNorm2d(channels),
    "relu": lambda channels, p: nn.ReLU(),
    "ic": IC,
    "dropout": lambda channels, p: Dropout(p),
}


@dataclasses.dataclass(frozen=True)
class Ordering:
    """The sequence of layers in each part of a block."""

    unit: tuple[str, ...]
    last_unit: tuple[str, ...]
    after_addition: tuple[str, ...]
    short_connection: tuple[str, ...]  # where shapes change; elsewhere it is the identity

    @classmethod
    def named(cls, name: str) -> "Ordering":
        """One of BASELINES, or the ordering whose name is its unit's layers: relu_ic_conv is ReLU-IC-Conv2D (Fig. 2b).

        The baseline is the classical block: its last unit has no ReLU, which follows the addition (Fig. 2a).
        baseline_ic is the same with IC layers for its units' BN; the study has no such control.
        """
        if name in BASELINES:
            norm = BASELINES[name]
            return cls(("conv", norm, "relu"), ("conv", norm), ("relu",), ("conv", "bn"))
        layers = tuple(name.split("_"))
        return cls(layers, layers, (), ("conv",))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the image's size (divided by the stride), without bias (docs/recipe.md)."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def unit(layers: Sequence[str], weights: nn.Conv2d, dropout_p: float) -> nn.Sequential:
    """One weight layer and the layers around it, in the order given (Fig. 2)."""
    modules: list[nn.Module] = []
    channels = weights.in_channels
    for layer in layers:
        if layer == "conv":
            modules.append(weights)
            channels = weights.out_channels
        else:
            modules.append(LAYERS[layer](channels, dropout_p))
    return nn.Sequential(*modules)


def grandchildren(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of a branch's units, or the blocks of all stages, in order."""
    return itertools.chain.from_iterable(child.children() for child in module.children())


class Block(nn.Module):
    """A residual block: the units' branch plus the short connection (Fig. 2)."""

    def __init__(
        self, kind: str, ordering: Ordering, inputs: int, width: int, *, stride: int, dropout_p: float
    ) -> None:
        super().__init__()
        units, channels = [], inputs
        for index, (kernel, multiple) in enumerate(BLOCKS[kind]):
            weights = convolution(channels, multiple * width, kernel, stride if index == 0 else 1)
            last = index == len(BLOCKS[kind]) - 1
            units.append(unit(ordering.last_unit if last else ordering.unit, weights, dropout_p))
            channels = weights.out_channels
        self.outputs = channels
        self.branch = nn.Sequential(*units)
        self.short_connection: nn.Module = nn.Identity()
        if stride != 1 or inputs != channels:
            projection = convolution(inputs, channels, 1, stride)
            self.short_connection = unit(ordering.short_connection, projection, dropout_p)
        self.after_addition = nn.Sequential(*(LAYERS[layer](channels, dropout_p) for layer in ordering.after_addition))

    def forward(self, maps: torch.Tensor, fusing: fusion.Pass | None = None) -> torch.Tensor:
        if fusing is None:
            return self.after_addition(self.branch(maps) + self.short_connection(maps))
        short = fusing.through(maps, *self.short_connection.children())  # an identity has none
        return fusing.through(maps, *grandchildren(self.branch), short, *self.after_addition)


class ResNet(nn.Module):
    """Stem, three stages of n blocks, global average pooling, linear classifier (the 2021 study, Sec. 2).

    Images (N, 3, 32, 32) -> logits (N, classes). The stem is conv-BN-ReLU for every ordering: the IC layer sits in the
    residual blocks. `block` is a key of BLOCKS, `ordering` a name as Ordering.named reads it.
    """

    def __init__(
        self, block: str, blocks_per_stage: int, ordering: str, *, dropout_p: float = 0.0, classes: int = 10
    ) -> None:
        super().__init__()
        channels = STAGE_WIDTHS[0]
        self.stem = nn.Sequential(convolution(3, channels, 3), nn.BatchNorm2d(channels), nn.ReLU())
        layers = Ordering.named(ordering)
        stages = []
        for width in STAGE_WIDTHS:
            blocks = []
            for index in range(blocks_per_stage):
                stride = 2 if index == 0 and width != STAGE_WIDTHS[0] else 1
                blocks.append(Block(block, layers, channels, width, stride=stride, dropout_p=dropout_p))
                channels = blocks[-1].outputs
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(channels, classes)
        self.fuses = True  # on a GPU, in train mode
        initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.fuses and self.training and images.is_cuda and fusion.works():
            maps = self.maps_fused(images, fusion.Pass(self, images.device))
        else:
            maps = self.stages(self.stem(images))
        return self.classifier(maps.mean(dim=(2, 3)))

    def maps_fused(self, images: torch.Tensor, fusing: fusion.Pass) -> torch.Tensor:
        """The last stage's maps, by fused layers."""
        maps = fusing.through(images, *self.stem)
        for block in grandchildren(self.stages):
            maps = block(maps, fusing)
        return maps


def initialise(network: nn.Module) -> None:
    """He initialisation of every weight layer: variance 2 / fan-in; biases zero (He et al. 2015, arXiv:1502.01852)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
