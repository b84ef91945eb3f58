"""lib/compiled.py: a compiled network computes what the plain one does, nearly. That it trains, a GPU must show."""

import copy
import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from lib.compiled import compile_blocks, compile_each
from lib.device import failures_explained
from lib.errors import BadInput
from lib.resnet import ResNet
from tests.making import CARD

ROOT = Path(__file__).parents[1]


def network(ordering: str, block: str) -> ResNet:
    torch.manual_seed(0)
    return ResNet(block, 3, ordering, dropout_p=0.0).double().to(memory_format=torch.channels_last)


def results(net: nn.Module) -> list[torch.Tensor]:
    """A batch's logits in training and in evaluation, and each parameter's gradient."""
    torch.manual_seed(1)
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    logits = net.train()(images)
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    with torch.no_grad():
        evaluated = net.eval()(images)
    return [logits.detach(), evaluated, *(each.grad for each in net.parameters() if each.grad is not None)]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs g++ on a CPU")
@pytest.mark.filterwarnings("ignore")  # torch.compile's own
@pytest.mark.parametrize(("ordering", "block", "kinds"), [("baseline", "basic", 5), ("conv_relu_ic", "bottleneck", 6)])
def test_a_compiled_network_computes_nearly_the_same_and_blocks_alike_are_compiled_once(
    ordering: str, block: str, kinds: int
) -> None:
    """Of the nine blocks, a stage's second and third are alike; so are all three where the first changes no shape."""
    plain = network(ordering, block)
    compiled, another = copy.deepcopy(plain), copy.deepcopy(plain)
    compile_each(compiled)
    counters.clear()
    found = results(compiled)
    assert counters["stats"]["unique_graphs"] == 2 * kinds  # for training, for evaluation
    for one, other in zip(found, results(plain), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)
    assert any(not torch.equal(one, other) for one, other in zip(found, results(copy.deepcopy(plain)), strict=True))

    compile_each(another)
    again = results(another)
    assert counters["stats"]["unique_graphs"] == 2 * kinds
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_on_a_cpu_it_is_refused_in_one_line(workplace: Path) -> None:
    with pytest.raises(BadInput, match="compile_blocks"):
        compile_blocks(network("baseline", "basic"))
    card = dataclasses.replace(CARD, compile_blocks=True)
    card.write(Path("plan", f"{card.name}.json"))
    failed = subprocess.run(
        [sys.executable, "-m", "stages.train", f"plan/{card.name}.json"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 2
    assert failed.stderr == (
        "train: compile_blocks: true is for a GPU, on a CPU it gains nothing: set it to false in params.yaml, "
        "which is another run, or train on a GPU\n"
    )
    assert not list(Path("models").glob("*.pt"))


def test_a_compilation_that_fails_says_so_in_one_line_with_the_cure() -> None:
    class CompilerError(RuntimeError):
        __module__ = "torch._inductor.exc"

    with pytest.raises(
        BadInput, match="compiling the network's blocks failed .CUDA: no such kernel.*compile_blocks: false"
    ):
        with failures_explained(64):
            raise CompilerError("CUDA: no\nsuch kernel")
