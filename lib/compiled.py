"""Residual blocks compiled by torch.compile: one kernel does what several of PyTorch's do, and rounds otherwise."""

import torch
from torch import nn

from lib.errors import BadInput
from lib.resnet import Block

VARIANTS = 1000  # orderings, shapes, modes and batch sizes that one process may meet


def compile_blocks(network: nn.Module) -> None:
    """Compile each residual block, in place, as soon as it meets maps of a new shape; blocks alike share the result.

    What is computed is near what the plain network computes, not the same to the bit. Compiling takes minutes and
    fails, if it does, at the first step, by an exception of torch._dynamo or torch._inductor.
    Raises BadInput on a CPU: dropout there draws a new number of positions at every step, each compiled anew.
    """
    if not next(network.parameters()).is_cuda:
        raise BadInput(
            "compile_blocks: true is for a GPU, on a CPU it gains nothing: "
            "set it to false in params.yaml, which is another run, or train on a GPU"
        )
    compile_each(network)


def compile_each(network: nn.Module) -> None:
    """The same on any device; on a CPU for networks without dropout only."""
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = dynamo.accumulated_recompile_limit = VARIANTS
    dynamo.fail_on_recompile_limit_hit = True  # else it would go on plainly, without a word
    torch._inductor.config.deterministic = True  # choose no kernel by a stopwatch
    for module in network.modules():
        if isinstance(module, Block):
            module.compile(dynamic=False, fullgraph=True)
