"""lib/dropout.py: exactly Bernoulli, whatever the shape; the same mask for values and gradients."""

import math

import pytest
import torch
from scipy import stats
from torch.nn import functional

from lib.dropout import Dropout, ZeroAt, dropped_positions, zeroed
from lib.ic import IC

P = [1e-3, 0.05, 0.3, 0.5, 0.9, 0.999]
ALPHA = 1e-4  # of each statistical test; the seeds are fixed, so none of them is flaky


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(7)


@pytest.mark.parametrize("p", P)
@pytest.mark.parametrize("count", [1, 2, 7, 1000, 100_003])
def test_positions_rise_and_lie_among_the_values(count: int, p: float) -> None:
    for _ in range(20):
        positions = dropped_positions(count, p)
        assert positions.dtype == torch.int64
        assert (positions.diff() > 0).all()
        assert ((0 <= positions) & (positions < count)).all()


@pytest.mark.parametrize("p", P)
def test_the_number_dropped_is_binomial(p: float) -> None:
    counts = [len(dropped_positions(400, p)) for _ in range(4000)]
    bins = torch.bincount(torch.tensor(counts), minlength=401).double().numpy()
    expected = 4000 * stats.binom.pmf(range(401), 400, p)
    often = expected >= 5  # as the chi-squared test asks for; the rest together is one more class
    observed, wanted = [*bins[often], bins[~often].sum()], [*expected[often], expected[~often].sum()]
    if wanted[-1] < 1e-9:
        observed, wanted = observed[:-1], wanted[:-1]
    assert stats.chisquare(observed, wanted, sum_check=False).pvalue > ALPHA


@pytest.mark.parametrize("p", P)
def test_the_gaps_are_geometric(p: float) -> None:
    gaps = torch.cat([dropped_positions(200_000, p).diff() for _ in range(3)]).numpy()
    longest = int(stats.geom.ppf(1 - 10 / len(gaps), p))  # beyond it less than ten are expected
    observed = [*(float((gaps == gap).sum()) for gap in range(1, longest + 1)), float((gaps > longest).sum())]
    shares = [*stats.geom.pmf(range(1, longest + 1), p), stats.geom.sf(longest, p)]
    step = max(1, len(shares) // 50)  # classes of some width, where there are many
    observed, shares = ([sum(each[at : at + step]) for at in range(0, len(each), step)] for each in (observed, shares))
    if len(shares) > 1:
        assert stats.chisquare(observed, [len(gaps) * share for share in shares], sum_check=False).pvalue > ALPHA


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_every_position_is_as_likely_as_any_other_the_first_and_the_last_too(p: float) -> None:
    hits = torch.zeros(50)
    for _ in range(8000):
        hits[dropped_positions(50, p)] += 1
    assert stats.chisquare(hits.numpy(), [8000 * p] * 50, sum_check=False).pvalue > ALPHA


@pytest.mark.parametrize("p", [0.05, 0.3])
def test_it_is_as_pytorchs_own_dropout_in_distribution(p: float) -> None:
    maps = torch.ones(8, 16, 10, 10)
    mine, theirs = (
        [(layer(maps) == 0).sum().item() for _ in range(500)] for layer in (Dropout(p), torch.nn.Dropout(p))
    )
    assert stats.ks_2samp(mine, theirs).pvalue > ALPHA


def test_a_probability_next_to_nothing_drops_nothing_and_does_not_overflow() -> None:
    assert len(dropped_positions(10**6, 1e-300)) == 0
    assert len(dropped_positions(10**6, 5e-324)) == 0


@pytest.mark.parametrize("p", [0.05, 0.9])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
def test_each_value_is_zero_or_scaled_and_its_gradient_likewise(p: float, form: torch.memory_format) -> None:
    maps = torch.randn(4, 8, 6, 6).contiguous(memory_format=form).requires_grad_()
    layer = Dropout(p)
    out = layer(maps)
    weights = torch.rand_like(out)
    (out * weights).sum().backward()
    kept = out != 0
    assert 0 < kept.sum() < kept.numel()
    torch.testing.assert_close(out[kept], (maps / (1 - p))[kept])
    assert maps.grad is not None
    torch.testing.assert_close(maps.grad, kept * weights / (1 - p))


@pytest.mark.parametrize("incoming", ["NHWC", "NCHW", "expanded"])
def test_gradients_are_zeroed_at_the_places_of_the_values_whatever_their_layout(incoming: str) -> None:
    maps = torch.randn(3, 4, 5, 6).contiguous(memory_format=torch.channels_last).requires_grad_()
    out = zeroed(maps * 1, 0.4)
    gradient = torch.rand(3, 4, 5, 6) + 1
    if incoming == "NHWC":
        gradient = gradient.contiguous(memory_format=torch.channels_last)
    if incoming == "expanded":
        gradient = torch.ones(1, 4, 1, 1).expand(3, 4, 5, 6)
    before = gradient.clone()
    out.backward(gradient)
    assert torch.equal(gradient, before)  # it may be somebody else's too, as beside a short connection
    assert maps.grad is not None
    assert torch.equal(maps.grad, before * (out != 0))


def test_the_gradient_is_the_derivative() -> None:
    maps = torch.randn(2, 3, 4, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    positions = dropped_positions(maps.numel(), 0.3)
    assert torch.autograd.gradcheck(lambda each: ZeroAt.apply(each * 1, positions), (maps,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_eval_mode_nothing_changes(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 3, 4, 4, dtype=dtype)
    assert torch.equal(Dropout(0.9).eval()(maps), maps)


def test_the_mean_is_kept() -> None:
    maps = torch.ones(64, 16, 16, 16)
    assert Dropout(0.05)(maps).mean().item() == pytest.approx(1, abs=5 * math.sqrt(0.05 / 0.95 / maps.numel()))


def test_a_seed_gives_a_mask_and_another_seed_another() -> None:
    maps = torch.ones(2, 3, 16, 16)

    def mask(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return Dropout(0.3)(maps)

    assert torch.equal(mask(1), mask(1))
    assert not torch.equal(mask(1), mask(2))


@pytest.mark.parametrize("p", [1.0, -0.1, math.nan])
def test_a_probability_outside_0_to_1_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=str(p)):
        Dropout(p)


def test_normalisation_with_the_scale_folded_in_is_normalisation_then_dropout() -> None:
    layer, twin = IC(8, 0.2), torch.nn.BatchNorm2d(8)
    with torch.no_grad():
        for each in (layer.normalise, twin):
            each.weight.copy_(torch.linspace(0.5, 2, 8))
            each.bias.copy_(torch.linspace(-1, 1, 8))
    maps = torch.randn(16, 8, 6, 6)
    mine, theirs = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    out = layer(mine)
    mask = (out != 0) / 0.8
    reference = twin(theirs) * mask
    torch.testing.assert_close(out, reference)
    for each in (out, reference):
        functional.mse_loss(each, torch.ones_like(each)).backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
    torch.testing.assert_close(layer.normalise.weight.grad, twin.weight.grad)
    torch.testing.assert_close(layer.normalise.bias.grad, twin.bias.grad)
    for (name, buffer), (_, other) in zip(layer.normalise.named_buffers(), twin.named_buffers(), strict=True):
        assert torch.equal(buffer, other), name
