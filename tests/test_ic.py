import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lib.ic import IC

CHANNELS = 16


@pytest.fixture
def images():
    torch.manual_seed(1)
    return 3 * torch.randn(16, CHANNELS, 24, 24) + 2


@pytest.fixture
def normalised(images):
    return functional.batch_norm(images, None, None, training=True)


def trained(p: float) -> IC:
    """A layer in train mode, its dropout seeded."""
    torch.manual_seed(2)
    return IC(CHANNELS, p).train()


def near(counted: torch.Tensor, rate: float) -> bool:
    """Whether a rate counted over independent draws is within 5 sigma of the expected one."""
    return abs(counted.float().mean().item() - rate) < 5 * math.sqrt(rate * (1 - rate) / counted.numel())


def test_without_dropout_it_is_batch_normalisation_exactly(images):
    layer, plain = IC(CHANNELS, 0.0), nn.BatchNorm2d(CHANNELS)
    for _ in range(2):
        assert torch.equal(layer.train()(images), plain.train()(images))
        assert torch.equal(layer.eval()(images), plain.eval()(images))
    for mine, theirs in zip(layer.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_in_eval_mode_it_is_batch_normalisation_by_the_running_statistics(p, images):
    layer = trained(p)
    layer(images)
    mean, variance = layer.normalise.running_mean, layer.normalise.running_var
    first, second = layer.eval()(images), layer.eval()(images)
    assert torch.equal(first, second)
    assert torch.equal(first, functional.batch_norm(images, mean, variance))


@pytest.mark.parametrize("p", [0.05, 0.3, 0.9])
def test_in_train_mode_each_value_is_zero_or_the_normalised_one_scaled(p, images, normalised):
    out = trained(p)(images)
    kept = out != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(out[kept], normalised[kept] / (1 - p))


@pytest.mark.parametrize("p", [0.01, 0.05, 0.3, 0.9])
def test_values_are_dropped_at_the_rate_asked_for(p, images):
    assert near(trained(p)(images) == 0, p)


@pytest.mark.parametrize("p", [0.05, 0.3])
@pytest.mark.parametrize("dimension", [0, 1, 2, 3], ids=["images", "channels", "rows", "columns"])
def test_neighbours_are_dropped_independently(p, dimension, images):
    dropped = trained(p)(images) == 0
    size = dropped.shape[dimension] // 2
    first, second = (dropped.unflatten(dimension, (size, 2)).select(dimension + 1, side) for side in (0, 1))
    assert near(first & second, p * p)


def test_other_values_are_dropped_at_the_next_step(images):
    layer = trained(0.3)
    first, second = layer(images) == 0, layer(images) == 0
    assert near(first & second, 0.3 * 0.3)


def test_running_statistics_move_in_train_mode_only(images):
    layer = trained(0.05)
    fresh = layer.normalise.running_mean.clone()
    layer.eval()(images)
    assert torch.equal(layer.normalise.running_mean, fresh)
    layer.train()(images)
    assert not torch.equal(layer.normalise.running_mean, fresh)


@pytest.mark.parametrize("p", [0.0, 0.9])
def test_normalisation_comes_before_dropout(p, images):
    layer = trained(p)
    layer(images)
    statistics = layer.normalise.momentum * images.mean(dim=(0, 2, 3))
    torch.testing.assert_close(layer.normalise.running_mean, statistics)  # of the values as they came, none dropped


@pytest.mark.parametrize("p", [1.0, 1.5, -0.1, -1e-9, math.nan, math.inf, -math.inf])
def test_a_probability_outside_0_to_1_is_refused_with_its_value(p):
    with pytest.raises(ValueError, match=str(p)):
        IC(CHANNELS, p)
