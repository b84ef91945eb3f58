"""lib/optimizer.py: PyTorch's optimizers, to the bit, at less cost."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.optimizer import SGD, Adam

ROOT = Path(__file__).parents[1]
TRAIN = """
import sys, torch
from lib.machine import device
from lib import training
device.make_deterministic()
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
batch = torch.ones(2, 3, 2, 2), torch.ones(2).long()
for name, momentum in ("adam", None), ("sgd", 0.9):
    recipe = training.Recipe(
        epochs=1, optimizer=name, momentum=momentum, weight_decay=0.1, learning_rate=0.1,
        learning_rate_rule="constant", learning_rate_steps=None, learning_rate_factor=None, precision="float32",
    )
    training.seconds_per_step(model, recipe, batch)
    optimizer = training.make_optimizer(recipe, model)
    optimizer.load_state_dict(optimizer.state_dict())
print(*(name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules))
"""


def test_training_does_not_load_torch_compile() -> None:
    """That would take longer than a short run does."""
    run = subprocess.run([sys.executable, "-c", TRAIN], cwd=ROOT, capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("\n", "")


@pytest.mark.parametrize(
    ("ours", "pytorchs", "how"),
    [(Adam, torch.optim.Adam, {}), (SGD, torch.optim.SGD, {"momentum": 0.9})],
    ids=["adam", "sgd"],
)
def test_it_does_what_pytorchs_does(
    ours: type[torch.optim.Optimizer], pytorchs: type[torch.optim.Optimizer], how: dict[str, float]
) -> None:
    """Over several steps, and after its state was loaded."""
    torch.manual_seed(0)
    first, second = nn.Linear(5, 3), nn.Linear(5, 3)
    second.load_state_dict(first.state_dict())
    pairs = [
        (net, kind(net.parameters(), lr=0.01, weight_decay=0.1, fused=True, **how))  # type: ignore[call-arg]
        for net, kind in ((first, ours), (second, pytorchs))
    ]
    for _ in range(3):
        x = torch.randn(4, 5)
        for net, optimizer in pairs:
            optimizer.zero_grad()
            net(x).square().mean().backward()
            optimizer.step()
            optimizer.load_state_dict(optimizer.state_dict())
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(*(optimizer.state_dict() for _, optimizer in pairs), rtol=0, atol=0)
    assert all(parameter.is_leaf for parameter in first.parameters())


def test_hooks_are_called() -> None:
    """As the benchmark's stopwatch needs them."""
    net, called = nn.Linear(2, 1), []
    optimizer = Adam(net.parameters(), lr=0.1)  # type: ignore[call-arg]
    optimizer.register_step_pre_hook(lambda *_: called.append("before"))
    optimizer.register_step_post_hook(lambda *_: called.append("after"))
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    assert called == ["before", "after"]
