"""Kernels of our own against float64, by Triton's interpreter where there is no GPU: lib/gpu/fused.py,
lib/gpu/convolved.py, and lib/gpu/fusion.py, which leads a network through them.
"""

import copy
import functools
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from lib.gpu import cast, fusion
from lib.ic import IC
from lib.resnet import ResNet

ROOT = Path(__file__).parents[1]
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
here = pytest.mark.skipif(not INTERPRETED and DEVICE.type == "cpu", reason="takes a GPU, or Triton's interpreter")
SHAPES = [(2, 16, 8, 8), (3, 32, 5, 7)] if DEVICE.type == "cpu" else [(64, 16, 32, 32), (5, 64, 15, 9)]
OTHER = {"eps": 0.1, "momentum": 0.3}  # than PyTorch's: a kernel with its own would be near enough
# p, ReLU before, something added, ReLU after
UNITS = {
    "relu ic": (0.05, True, False, False),
    "ic": (0.3, False, False, False),
    "bn relu": (0.0, False, False, True),
    "bn, residual, relu": (0.0, False, True, True),
    "relu ic, residual": (0.05, True, True, False),
    "everything": (0.5, True, True, True),
}


@pytest.mark.slow
@pytest.mark.skipif(INTERPRETED or DEVICE.type == "cuda", reason="it is interpreted, or a GPU runs it, already")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch came without Triton")
def test_the_kernels_by_tritons_interpreter() -> None:
    """In a process of its own: Triton asks for this variable when it is imported."""
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", __file__]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    (passed,) = re.findall(r"=+ (\d+) passed, 2 skipped in ", run.stdout)
    assert int(passed) > 60


def random(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    values = (torch.randn(shape, device=DEVICE) * 2 + 1.5).to(dtype)
    return values.to(memory_format=torch.channels_last).requires_grad_()


def some_norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, device=DEVICE, **OTHER)
    with torch.no_grad():
        for each, low, high in ((norm.weight, -2, 2), (norm.bias, -1, 1)):
            each.uniform_(low, high)
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    return norm


@functools.cache
def counter() -> torch.Tensor:
    return torch.zeros(1, dtype=torch.int32, device=DEVICE)


def kept(shape: tuple[int, ...], drawn: tuple) -> torch.Tensor:
    """Which values dropout keeps: normalised with weight 0 and bias 1, all others are ones."""
    from lib.gpu.fused import Drawn, normalised

    norm = nn.BatchNorm2d(shape[1], device=DEVICE)
    nn.init.zeros_(norm.weight)
    nn.init.ones_(norm.bias)
    return normalised(random(shape, torch.float32), norm, counter(), Drawn(*drawn)) != 0


@here
@pytest.mark.parametrize(("tile", "programs"), [(256, 3), (64, 64), (128, 1)])
@pytest.mark.parametrize("unit", UNITS)
def test_so_are_those_gathered_from_many_tiles_and_programs(
    unit: str, tile: int, programs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program of several tiles, several programs, and of both kinds a last one with less to do."""
    from lib.gpu import fused

    monkeypatch.setattr(fused, "TILE", tile)
    monkeypatch.setattr(fused, "PROGRAMS", programs)
    test_a_unit_and_its_gradients_are_those_of_float64(unit, (2, 16, 5, 5), torch.float32)


@here
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_and_its_gradients_are_those_of_float64(unit: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    from lib.gpu.fused import Drawn, normalised

    torch.manual_seed(1)
    p, relu, adds, relu_after = UNITS[unit]
    norm = some_norm(shape[1])
    exact = nn.BatchNorm2d(shape[1], device=DEVICE, **OTHER).double()
    exact.load_state_dict(norm.state_dict())
    x, added, dy = random(shape, dtype), random(shape, dtype) if adds else None, random(shape, dtype).detach()
    drawn = (p, torch.tensor([2**40 + 7], device=DEVICE), 3)

    y = normalised(x, norm, counter(), Drawn(*drawn), relu=relu, added=added, relu_after=relu_after)
    y.backward(dy)
    assert int(counter()) == 0
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)

    x64, added64 = x.detach().double().requires_grad_(), added.detach().double().requires_grad_() if adds else None
    y64 = exact(x64.relu() if relu else x64) * (kept(shape, drawn) / (1 - p) if p else 1)
    y64 = y64 + added64 if added64 is not None else y64
    # Where rounding moved a value across zero the gradients differ altogether: the ReLU's decision is taken as it is.
    y64.backward(dy.double() * (y.detach() > 0) if relu_after else dy.double())
    pairs = {"y": (y, y64.relu() if relu_after else y64), "x": (x.grad, x64.grad)}
    pairs |= {name: (each.grad, dict(exact.named_parameters())[name].grad) for name, each in norm.named_parameters()}
    pairs |= {name: (getattr(norm, name), getattr(exact, name)) for name in ("running_mean", "running_var")}
    if adds:
        pairs["added"] = (added.grad, added64.grad)
    for name, (found, right) in pairs.items():
        distance = (found.double() - right).norm() / right.norm()
        in_maps = name in ("y", "x", "added")
        assert distance < (5e-3 if dtype == torch.bfloat16 and in_maps else 2e-5), (name, float(distance))


@here
@pytest.mark.parametrize("relu", [True, False])
def test_a_channel_without_variance_becomes_its_bias_and_has_finite_gradients(relu: bool) -> None:
    """As a ReLU before the layer may leave one."""
    from lib.gpu.fused import Drawn, normalised

    x = torch.full((2, 16, 8, 8), -1.5 if relu else 1.5, device=DEVICE).to(memory_format=torch.channels_last)
    norm = some_norm(16)
    drawn = Drawn(0.0, torch.tensor([1], device=DEVICE), 0)
    y = normalised(x.requires_grad_(), norm, counter(), drawn, relu=relu)
    y.backward(torch.randn_like(y))
    torch.testing.assert_close(y, norm.bias.view(1, -1, 1, 1).expand_as(y), rtol=0, atol=1e-5)
    assert all(each.grad.isfinite().all() for each in (x, norm.weight, norm.bias))


@here
@pytest.mark.parametrize("shape", [(3, 16, 9, 9), (2, 32, 6, 5), (1, 64, 3, 3), (2, 16, 1, 2)], ids=str)
def test_a_convolution_and_its_gradients_are_those_of_float64(shape: tuple[int, ...]) -> None:
    from lib.gpu.convolved import convolved

    torch.manual_seed(1)
    dtype = torch.float16 if INTERPRETED else torch.bfloat16  # the interpreter cannot multiply matrices of bfloat16
    x, dy, weights = random(shape, dtype), random(shape, dtype).detach(), random((shape[1], shape[1], 3, 3), dtype)
    y = convolved(x, weights)
    y.backward(dy)
    assert y.dtype == dtype and y.is_contiguous(memory_format=torch.channels_last)

    x64, weights64 = (each.detach().double().requires_grad_() for each in (x, weights))
    y64 = nn.functional.conv2d(x64, weights64, padding=1)
    y64.backward(dy.double())
    for found, right in ((y, y64), (x.grad, x64.grad), (weights.grad, weights64.grad)):
        assert (found.double() - right).norm() < (5e-3 if dtype == torch.bfloat16 else 5e-4) * right.norm()


@here
@pytest.mark.parametrize("p", [0.01, 0.05, 0.5, 0.9])
def test_dropout_strikes_with_its_probability_and_independently(p: float) -> None:
    shape = (4, 16, 16, 16) if DEVICE.type == "cpu" else (64, 16, 32, 32)
    seeds = [torch.tensor([seed], device=DEVICE) for seed in (5, 6)]
    draws = [kept(shape, (p, seeds[0], 0)), kept(shape, (p, seeds[0], 1)), kept(shape, (p, seeds[1], 0))]
    count = draws[0].numel()
    for draw in draws:
        assert abs(draw.sum() - count * (1 - p)) < 5 * (count * p * (1 - p)) ** 0.5
        for dimension in range(4):  # images, channels, rows, columns
            size = shape[dimension] - 1
            neighbours = (~draw.narrow(dimension, 0, size) & ~draw.narrow(dimension, 1, size)).double()
            assert abs(neighbours.mean() - p * p) < 6 * p / count**0.5
    for other in draws[1:]:  # of another layer, of another step
        both = (~draws[0] & ~other).double()
        assert abs(both.mean() - p * p) < 6 * p / count**0.5
    assert torch.equal(draws[0], kept(shape, (p, seeds[0], 0)))


@here
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize(
    "ordering",
    ["baseline", "baseline_ic", "relu_ic_conv", "ic_conv_relu", "conv_relu_ic", "bn_relu_conv", "conv_ic_dropout"],
)
def test_a_network_taken_through_fused_layers_is_the_network(
    ordering: str, block: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logits, gradients and buffers in float64; dropout with so small a probability that it hits nothing."""
    torch.manual_seed(1)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network = ResNet(block, 1, ordering, dropout_p=1e-9).to(DEVICE).to(memory_format=torch.channels_last)
    size = 8 if INTERPRETED else 16  # the interpreter's time goes with it
    images, labels = torch.randn(4, 3, size, size, device=DEVICE), torch.arange(4, device=DEVICE)
    twin = copy.deepcopy(network).double()
    twin.fuses = False
    fused = logits_of(network, fusion.Pass(network, images.device), images)
    plain = twin(images.double())
    for logits in (fused, plain):
        nn.functional.cross_entropy(logits, labels).backward()

    def all_of(net: nn.Module, logits: torch.Tensor) -> list[torch.Tensor]:
        return [logits, *(each.grad for each in net.parameters() if each.grad is not None), *net.buffers()]

    for one, other in zip(all_of(network, fused), all_of(twin, plain), strict=True):
        distance, size = (one.double() - other).norm(), other.double().norm()
        assert distance <= 1e-2 * size + 1e-4  # a ReLU near zero may decide otherwise after rounding


def logits_of(network: ResNet, fusing: fusion.Pass, images: torch.Tensor) -> torch.Tensor:
    """As the network does it on a GPU."""
    return network.classifier(network.maps_fused(images, fusing).mean(dim=(2, 3)))


@here
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_every_layer_of_every_pass_drops_by_its_own_draw(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib.gpu import fused

    drawn: list[fused.Drawn] = []
    norms: list[nn.BatchNorm2d] = []

    def noted(
        x: torch.Tensor, norm: nn.BatchNorm2d, counter: torch.Tensor, draw: fused.Drawn, **how: object
    ) -> torch.Tensor:
        drawn.append(draw)
        norms.append(norm)
        return normalised(x, norm, counter, draw, **how)

    normalised = fused.normalised
    monkeypatch.setattr(fused, "normalised", noted)
    network = ResNet(block, 1, "conv_relu_ic", dropout_p=0.25).to(DEVICE)
    for _ in range(2):
        logits_of(network, fusion.Pass(network, DEVICE), torch.randn(2, 3, 8, 8, device=DEVICE))
    of_a_pass = len(drawn) // 2
    in_ic = {id(layer.normalise) for layer in network.modules() if isinstance(layer, IC)}
    assert [draw.p for draw in drawn] == [0.25 if id(norm) in in_ic else 0.0 for norm in norms]
    assert len(in_ic) == of_a_pass - 1 and len({id(norm) for norm in norms}) == of_a_pass  # the stem has the other
    assert len({draw.layer for draw in drawn[:of_a_pass]}) == of_a_pass
    first, second = ({int(draw.seed) for draw in part} for part in (drawn[:of_a_pass], drawn[of_a_pass:]))
    assert len(first) == len(second) == 1 and first != second


@here
def test_a_network_has_its_convolutions_done_by_our_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib.gpu import convolved

    network = ResNet("basic", 2, "baseline").to(DEVICE, torch.bfloat16)
    x = torch.empty(1, 16, 4, 4, device=DEVICE, dtype=torch.bfloat16)
    convolutions = [each for each in network.modules() if isinstance(each, nn.Conv2d)]
    assert sum(convolved.can(each, x) for each in convolutions) == 3 * 4 - 2  # not the two that halve the image
    for other in ({"dilation": 2}, {"padding_mode": "circular"}, {"groups": 2}, {"bias": True}, {"padding": 0}):
        made = {"padding": 1, "bias": False} | other
        assert not convolved.can(nn.Conv2d(16, 16, 3, **made).to(DEVICE, torch.bfloat16), x)
    assert not convolved.can(convolutions[1], x.float())


@pytest.mark.skipif(INTERPRETED, reason="it is no kernel")
def test_weights_cast_beforehand_give_what_autocast_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    torch.manual_seed(1)
    network = ResNet("bottleneck", 1, "relu_bn_conv").to(DEVICE)
    network.fuses = False
    images, labels = torch.randn(4, 3, 16, 16, device=DEVICE), torch.arange(4, device=DEVICE)
    twin = copy.deepcopy(network)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        for logits in (cast.forward(network, images, torch.bfloat16), twin(images)):
            nn.functional.cross_entropy(logits.float(), labels).backward()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)

    without = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).to(DEVICE)
    assert cast.forward(without, images, torch.bfloat16).shape == (4, 2)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="here it works")
def test_where_triton_fails_one_line_says_so_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fusion.works.cache_clear()
    assert not fusion.works() and not fusion.works()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: fusing layers failed (") and line.endswith("goes on layer by layer, slower")
    fusion.works.cache_clear()
    monkeypatch.setenv(fusion.SWITCH, "0")
    assert not fusion.works()
    assert not capsys.readouterr().err
    fusion.works.cache_clear()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="PyTorch came without Triton")
def test_memory_that_ran_out_is_no_fault_of_tritons(monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes, and a run that goes on layer by layer would not be the same to the bit."""

    def no_memory(device: torch.device) -> None:
        raise RuntimeError("Triton Error [CUDA]: out of memory")

    monkeypatch.setattr("lib.gpu.fused.trial", no_memory)
    fusion.works.cache_clear()
    with pytest.raises(RuntimeError, match="out of memory"):
        fusion.works()
