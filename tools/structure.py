"""Print the structure of a network in an ordering, with parts named as in the paper's Figure 2; trains nothing.

The network is one of params.yaml, its preset applied; the ordering may be any, named by its layers: relu_bn_conv.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from lib.card import depth
from lib.errors import BadInput, errors_exit
from lib.ic import IC
from lib.plan import checked_ordering, read_study
from lib.resnet import Block, ResNet
from lib.words import counted


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.structure", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="a network of params.yaml, as resnet110")
    parser.add_argument("ordering", help="baseline, baseline_ic, or a unit's layers in order, as conv_relu_ic")
    options = parser.parse_args()
    with errors_exit("structure"):
        networks = read_study(Path("params.yaml")).networks
        if options.network not in networks:
            raise BadInput(f"params.yaml has no network {options.network!r}; there are {', '.join(networks)}")
        try:
            ordering = checked_ordering(options.ordering)
        except ValueError as error:
            raise BadInput(f"{options.ordering!r}: {error}") from None
        network = networks[options.network]
        print("\n".join(structure(options.network, network.block, network.blocks_per_stage, ordering)))


def structure(name: str, block: str, blocks_per_stage: int, ordering: str) -> Iterator[str]:
    """A network's structure, line by line, read off the network itself without allocating its weights."""
    with torch.device("meta"):
        network = ResNet(block, blocks_per_stage, ordering, dropout_p=0.0)
    parameters = sum(each.numel() for each in network.parameters())
    yield f"{name} {ordering}: {depth(block, blocks_per_stage)} layers, {parameters:,} parameters"
    yield f"  stem     {drawn(network.stem)}"
    for number, stage in enumerate(network.stages, start=1):
        where = f"stage {number}"
        for text, alike in itertools.groupby(map(drawn_block, stage.children())):
            count = len(list(alike))
            many = "first block" if where and count == 1 else counted(count, "block" if where else "more block")
            yield f"  {where:7}  {many:14}  {text}"
            where = ""
    yield f"  output   {drawn(network.classifier)}"


def drawn_block(block: nn.Module) -> str:
    """A block: its units, the short connection, what follows the addition."""
    assert isinstance(block, Block)
    units = " ".join(f"[{drawn(unit)}]" for unit in block.branch)
    after = f", then {drawn(block.after_addition)}" if len(block.after_addition) else ""
    return f"{units} + {drawn(block.short_connection)}{after}"


def drawn(module: nn.Module) -> str:
    """A layer, or layers one after the other, with their channels."""
    match module:
        case IC():
            return f"IC({module.normalise.num_features})"
        case nn.Sequential():
            return "-".join(map(drawn, module))
        case nn.Conv2d(kernel_size=(k, _), stride=(stride, _)):
            size = f"Conv{k}x{k}" + (f"/{stride}" if stride > 1 else "")
            return f"{size}({module.in_channels}->{module.out_channels}{' + bias' if module.bias is not None else ''})"
        case nn.BatchNorm2d():
            return f"BN({module.num_features})"
        case nn.Linear():
            return f"Linear({module.in_features}->{module.out_features}{' + bias' if module.bias is not None else ''})"
    return type(module).__name__


if __name__ == "__main__":
    main()
