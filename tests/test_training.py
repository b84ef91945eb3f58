"""lib/training.py with a toy net and toy data: it would train any classifier."""

import copy
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lib import optimizer as optimizers
from lib import training
from lib.checkpoint import Snapshot
from lib.errors import BadInput
from lib.machine.device import circumstances
from lib.metrics import EpochRecord
from lib.training import Batch, Recipe, Tally

CPU = torch.device("cpu")
FRESH = Snapshot.of_start(None, circumstances(CPU))


def recipe(**changes: Any) -> Recipe:
    plain = Recipe(
        epochs=3,
        optimizer="adam",
        momentum=None,
        weight_decay=0.0,
        learning_rate=0.01,
        learning_rate_rule="constant",
        learning_rate_steps=None,
        learning_rate_factor=None,
        precision="float32",
    )
    return dataclasses.replace(plain, **changes)


SGD = {"optimizer": "sgd", "momentum": 0.0}


def toy_net(dropout_p: float = 0.3, seed: int = 0) -> nn.Sequential:
    """With every kind of state a net of ours has: weights, running statistics, dropout."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(dropout_p), nn.ReLU(), nn.Linear(16, 4))


def toy_data(images: int = 30, batch: int = 8, seed: int = 0) -> list[Batch]:
    """Four classes that a line separates, in batches of which the last is small."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (images,), generator=generator)
    points = torch.randn(images, 8, generator=generator) + 3 * functional.one_hot(labels, 8)
    return list(zip(points.split(batch), labels.split(batch), strict=True))


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def seed_of(epoch: int, step: int) -> int:
    return 1000 * epoch + step


def fit(
    model: nn.Module,
    how: Recipe,
    data: list[Batch],
    seed: Callable[[int, int], int] = seed_of,
) -> Iterator[EpochRecord]:
    return records_of(training.fit(model, how, lambda epoch: data, lambda: data, seed, FRESH))


def records_of(steps: Iterator[Snapshot | None]) -> Iterator[EpochRecord]:
    """Each epoch's own record."""
    return (snapshot.history[-1] for snapshot in steps if snapshot is not None)


# The learning rate.


@pytest.mark.parametrize("epoch", [1, 2, 60, 200])
def test_a_constant_rate_is_constant(epoch: int) -> None:
    assert training.learning_rate(recipe(learning_rate=0.003), epoch) == 0.003


@pytest.mark.parametrize(
    "epoch, drops",
    [(1, 0), (79, 0), (80, 0), (81, 1), (120, 1), (121, 2), (160, 2), (161, 3), (200, 3)],
)
def test_the_rate_drops_after_the_steps_epochs(epoch: int, drops: int) -> None:
    how = recipe(
        learning_rate=0.1, learning_rate_rule="steps", learning_rate_steps=(80, 120, 160), learning_rate_factor=0.1
    )
    assert training.learning_rate(how, epoch) == pytest.approx(0.1 * 0.1**drops, rel=1e-12)


def test_fit_trains_at_the_epochs_rate_and_records_it() -> None:
    how = recipe(
        **SGD, learning_rate=0.1, learning_rate_rule="steps", learning_rate_steps=(1, 2), learning_rate_factor=0.5
    )
    model, (images, labels) = nn.Linear(8, 4), toy_data(8, 8)[0]
    for record, rate in zip(fit(copied := copy.deepcopy(model), how, [(images, labels)]), [0.1, 0.05, 0.025]):  # noqa: B905
        assert record.learning_rate == rate
        functional.cross_entropy(model(images), labels).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= rate * parameter.grad
                parameter.grad = None
        assert all(torch.allclose(one, other) for one, other in zip(model.parameters(), copied.parameters()))  # noqa: B905


# The optimizer.


def test_adam_has_pytorchs_settings_and_the_recipes_rate_and_decay() -> None:
    model = toy_net()
    optimizer = training.make_optimizer(recipe(learning_rate=0.002, weight_decay=1e-4), model)
    assert type(optimizer) is optimizers.Adam  # not AdamW, whose decay is no L2 penalty
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.002, 1e-4)
    assert (group["betas"], group["eps"], group["amsgrad"]) == ((0.9, 0.999), 1e-8, False)
    assert not group.get("decoupled_weight_decay", False)
    assert [id(each) for each in group["params"]] == [id(each) for each in model.parameters()]


def test_sgd_has_the_recipes_momentum_rate_and_decay() -> None:
    model = toy_net()
    how = recipe(optimizer="sgd", momentum=0.9, learning_rate=0.1, weight_decay=5e-4)
    optimizer = training.make_optimizer(how, model)
    assert type(optimizer) is optimizers.SGD
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.9, 5e-4)
    assert (group["nesterov"], group["dampening"]) == (False, 0)
    assert [id(each) for each in group["params"]] == [id(each) for each in model.parameters()]


@pytest.mark.parametrize("optimizer, momentum", [("adam", None), ("sgd", 0.9)])
def test_weight_decay_pulls_every_parameter_towards_zero(optimizer: str, momentum: float | None) -> None:
    model = nn.Linear(3, 2)
    for parameter in model.parameters():
        nn.init.constant_(parameter, -0.5)
    how = recipe(optimizer=optimizer, momentum=momentum, learning_rate=0.01, weight_decay=0.1)
    step = training.make_optimizer(how, model)
    before = [parameter.detach().abs().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert (parameter.abs() < old).all()


def test_a_rate_that_a_captured_step_reads_is_written_in_place() -> None:
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(toy_net().parameters(), lr=rate, fused=True)
    training.set_rate(optimizer, 0.01)
    assert optimizer.param_groups[0]["lr"] is rate and rate == torch.tensor(0.01)


def test_a_step_starts_from_fresh_gradients() -> None:
    model, batch = nn.Linear(8, 4), toy_data(8, 8)[0]
    fresh = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e3)
    for each in (model, fresh):
        training.train_step(each, training.make_optimizer(recipe(**SGD), each), batch, "float32", Tally(CPU))
    assert same(state(model), state(fresh))


# The tally.


@pytest.mark.parametrize("size", [1, 3, 7, 30])
def test_a_tally_sums_over_images_whatever_the_batches(size: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(30, 4, generator=generator), torch.randint(0, 4, (30,), generator=generator)
    tally = Tally(CPU)
    for part, wanted in zip(logits.split(size), labels.split(size), strict=True):
        tally.add(functional.cross_entropy(part, wanted), part, wanted)
    assert tally.images == 30
    assert tally.mean_loss() == pytest.approx(functional.cross_entropy(logits.double(), labels).item(), rel=1e-6)
    assert tally.accuracy() == sum(int(part.argmax() == wanted) for part, wanted in zip(logits, labels)) / 30  # noqa: B905


@pytest.mark.parametrize("right", [0, 1, 3, 4])
def test_accuracy_is_the_fraction_of_images_whose_largest_logit_is_the_labels(right: int) -> None:
    tally = Tally(CPU)
    tally.add(torch.tensor(1.0), torch.tensor([[0.0, 5.0, -9.0]] * 4), torch.tensor([1] * right + [2] * (4 - right)))
    assert tally.accuracy() == right / 4


def test_a_tally_keeps_no_graph() -> None:
    tally = Tally(CPU)
    logits = torch.zeros(2, 4, requires_grad=True)
    labels = torch.tensor([0, 1])
    tally.add(functional.cross_entropy(logits, labels), logits, labels)
    assert not tally.loss.requires_grad


# Evaluation.


class Spy(nn.Module):
    """Notes in what circumstances it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append((self.training, torch.is_grad_enabled()))
        return self.inner(images)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_evaluate_runs_in_eval_mode_without_gradients_and_restores_the_mode(mode: bool) -> None:
    model = Spy().train(mode)
    tally = training.evaluate(model, toy_data(30, 8), "float32", CPU)
    assert model.seen == [(False, False)] * 4
    assert [module.training for module in model.modules()] == [mode] * 2
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not tally.loss.requires_grad


def test_evaluate_changes_neither_weights_nor_running_statistics_nor_the_random_state() -> None:
    model = toy_net().train()
    before, random = state(model), torch.get_rng_state()
    training.evaluate(model, toy_data(), "float32", CPU)
    assert same(before, state(model))
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.parametrize("size", [1, 8, 29, 30])
def test_evaluate_counts_the_same_however_the_images_are_batched(size: int) -> None:
    model = toy_net(seed=3)
    whole = training.evaluate(model, toy_data(30, 30), "float32", CPU)
    parts = training.evaluate(model, toy_data(30, size), "float32", CPU)
    assert parts.images == whole.images == 30
    assert parts.correct.item() == whole.correct.item()
    assert 0 < whole.accuracy() < 1
    assert parts.mean_loss() == pytest.approx(whole.mean_loss(), rel=1e-6)


# Fitting.


@pytest.mark.parametrize("optimizer, momentum, rate", [("adam", None, 0.05), ("sgd", 0.9, 0.1)])
def test_fit_overfits_a_small_batch(optimizer: str, momentum: float | None, rate: float) -> None:
    how = recipe(epochs=60, optimizer=optimizer, momentum=momentum, learning_rate=rate)
    generator = torch.Generator().manual_seed(0)
    noise = [(torch.randn(16, 8, generator=generator), torch.randint(0, 4, (16,), generator=generator))]
    records = list(fit(toy_net(dropout_p=0.0), how, noise))
    assert records[0].train_loss > 1
    assert records[-1].train_loss < 0.1
    assert records[-1].test_loss < 0.2
    assert records[-1].train_accuracy == records[-1].test_accuracy == 1


def test_records_are_numbered_from_one_and_accuracies_are_fractions() -> None:
    records = list(fit(toy_net(), recipe(epochs=4), toy_data()))
    assert [record.epoch for record in records] == [1, 2, 3, 4]
    for record in records:
        for accuracy in (record.train_accuracy, record.test_accuracy):
            assert 0 < accuracy <= 1
            assert accuracy * 30 == pytest.approx(round(accuracy * 30), abs=1e-9)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_train_record_is_of_train_mode_and_the_test_record_of_eval_mode_after_the_epoch(precision: str) -> None:
    model, data, test = toy_net(dropout_p=0.0), toy_data(8, 8), toy_data(30, 8, seed=1)
    twin = copy.deepcopy(model).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
        logits = twin(data[0][0])
    train_loss = functional.cross_entropy(logits.float(), data[0][1]).item()  # of the only step, before it
    how = recipe(epochs=1, precision=precision)
    (record,) = records_of(training.fit(model, how, lambda epoch: data, lambda: test, lambda epoch, step: 0, FRESH))
    after = training.evaluate(model, test, precision, CPU)
    assert record.train_loss == pytest.approx(train_loss, rel=1e-6)
    assert (record.test_loss, record.test_accuracy) == (after.mean_loss(), after.accuracy())


def test_a_record_is_yielded_before_the_next_epoch_begins() -> None:
    asked: list[int] = []

    def batches(epoch: int) -> list[Batch]:
        asked.append(epoch)
        return toy_data()

    records = records_of(training.fit(toy_net(), recipe(), batches, toy_data, lambda epoch, step: 0, FRESH))
    assert asked == []
    for epoch in (1, 2, 3):
        assert next(records).epoch == epoch
        assert asked == list(range(1, epoch + 1))
    assert next(records, None) is None


def test_every_epoch_trains_in_train_mode_and_evaluates_in_eval_mode() -> None:
    model = Spy().eval()
    list(fit(model, recipe(epochs=2), toy_data(30, 8)))
    assert model.seen == ([(True, True)] * 4 + [(False, False)] * 4) * 2


# A loss that is not finite.


@pytest.mark.parametrize("optimizer, momentum", [("adam", None), ("sgd", 0.9)])
def test_a_rate_that_is_far_too_high_is_bad_input_that_names_epoch_and_key(
    optimizer: str, momentum: float | None
) -> None:
    how = recipe(optimizer=optimizer, momentum=momentum, learning_rate=1e20)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    with pytest.raises(BadInput, match=r"epoch 1;.*learning_rate") as caught:
        list(fit(model, how, toy_data()))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["train", "test"])
def test_a_loss_that_is_not_finite_ends_the_run_in_its_epoch(where: str, value: float) -> None:
    good = toy_data()
    bad = [(torch.full_like(images, value), labels) for images, labels in good]
    steps = training.fit(
        nn.Linear(8, 4),
        recipe(),
        lambda epoch: bad if where == "train" and epoch == 2 else good,
        iter([good, bad]).__next__ if where == "test" else lambda: good,
        lambda epoch, step: 0,
        FRESH,
    )
    records = records_of(steps)
    assert next(records).epoch == 1  # what was good is there
    with pytest.raises(BadInput, match=r"epoch 2;.*learning_rate"):
        next(records)


@pytest.mark.parametrize("bad_step", [1, 50, 51, 75])
def test_a_loss_that_is_not_finite_is_noticed_within_the_steps_between_checks(bad_step: int) -> None:
    served = 0

    def batches(epoch: int) -> Iterator[Batch]:
        nonlocal served
        for step in itertools.count(1):
            served = step
            yield torch.full((2, 8), float("nan") if step == bad_step else 0.5), torch.tensor([0, 1])

    with pytest.raises(BadInput):
        list(training.fit(nn.Linear(8, 4), recipe(), batches, toy_data, lambda epoch, step: 0, FRESH))
    assert bad_step <= served < bad_step + training.STEPS_BETWEEN_CHECKS


# Randomness.


def run(
    how: Recipe | None = None,
    seed: Callable[[int, int], int] = seed_of,
    between: Callable[[], object] = lambda: None,
) -> tuple[list[EpochRecord], dict[str, torch.Tensor]]:
    """A run of the toy net's; something may happen after each epoch."""
    model, records = toy_net(), []
    for record in fit(model, how or recipe(), toy_data(), seed):
        records.append(record)
        between()
    return records, state(model)


def test_the_same_seeds_give_the_same_records_and_weights_bit_for_bit() -> None:
    (records, weights), (again, weights_again) = run(), run()
    assert records == again
    assert same(weights, weights_again)


@pytest.mark.parametrize(
    "disturbance",
    [lambda: torch.rand(7), lambda: torch.manual_seed(99), lambda: toy_net(seed=5)],
    ids=["a draw", "a seed", "another net"],
)
def test_what_happens_between_epochs_changes_nothing(disturbance: Callable[[], object]) -> None:
    (records, weights), (disturbed, weights_disturbed) = run(), run(between=disturbance)
    assert records == disturbed
    assert same(weights, weights_disturbed)


def test_the_random_state_before_the_first_epoch_changes_nothing() -> None:
    runs = []
    for seed in (1, 2):
        model = toy_net()
        torch.manual_seed(seed)
        runs.append((list(fit(model, recipe(), toy_data())), state(model)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


def test_another_dropout_seed_gives_another_run() -> None:
    (records, weights), (others, other_weights) = run(), run(seed=lambda epoch, step: seed_of(epoch + 100, step))
    assert records != others
    assert not same(weights, other_weights)


def test_a_seed_is_used_from_its_epoch_on() -> None:
    (records, _), (others, _) = run(), run(seed=lambda epoch, step: seed_of(epoch, step) if epoch < 3 else 77)
    assert records[:2] == others[:2]
    assert records[2] != others[2]


# Precision.


def test_bfloat16_stays_near_float32_and_keeps_float32_weights() -> None:
    how = recipe(epochs=5)
    (exact, weights), (rough, rough_weights) = run(how), run(dataclasses.replace(how, precision="bfloat16"))
    assert exact != rough  # it was used at all
    for one, other in zip(exact, rough, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=0.05, abs=0.02)
        assert other.test_loss == pytest.approx(one.test_loss, rel=0.05, abs=0.02)
    assert {key: value.dtype for key, value in rough_weights.items()} == {k: v.dtype for k, v in weights.items()}


@pytest.mark.parametrize("precision, inside", [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_the_precision_is_that_of_the_networks_arithmetic_and_the_loss_is_float32(
    precision: str, inside: torch.dtype
) -> None:
    loss, logits = training.forward(nn.Linear(8, 4), toy_data()[0], precision)
    assert (logits.dtype, loss.dtype, loss.shape) == (inside, torch.float32, ())
    assert not torch.is_autocast_enabled("cpu")


# Devices and clocks.


@pytest.mark.parametrize("optimizer, momentum", [("adam", None), ("sgd", 0.9)])
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
def test_timing_a_step_leaves_the_model_as_it_is(mode: bool, optimizer: str, momentum: float | None) -> None:
    model = toy_net().train(mode)
    before = state(model)
    seconds = training.seconds_per_step(model, recipe(optimizer=optimizer, momentum=momentum), toy_data()[0])
    assert seconds > 0
    assert same(before, state(model))
    assert model.training == mode
    assert all(parameter.grad is None for parameter in model.parameters())


def test_timing_takes_the_faster_of_two_steps_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.5, 10.0, 13.0, 20.0, 22.0])
    monkeypatch.setattr(training.time, "perf_counter", ticks.__next__)
    assert training.seconds_per_step(toy_net(), recipe(), toy_data()[0]) == 2.0
