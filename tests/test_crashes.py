"""A run is killed in every state that its writes can leave the disk in; the rerun is the undisturbed run, bit by bit.

SIGKILL leaves what the kernel has; a power cut may leave less, and what holds then is the order of fsync and rename
(tests/test_files.py).
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from lib.card import RunCard
from tests.crashing import Processes, Sweep, clean_process, files_in, unaccounted
from tests.making import CARD, IC_CARD

SMALL = dict(epochs=3, train_images=4, batch_size=2, test_images=2)
ADAM = dataclasses.replace(IC_CARD, **SMALL)
SGD = dataclasses.replace(CARD, block="bottleneck", optimizer="sgd", momentum=0.9, **SMALL)
CARDS = {"basic, IC, Adam": ADAM, "bottleneck, baseline, SGD": SGD}
cards = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)


@pytest.fixture(scope="module")
def processes() -> Processes:
    return clean_process()


@pytest.fixture
def sweep(processes: Processes, pristine_stand_in: Path, tmp_path: Path) -> Callable[..., Sweep]:
    """The sweep of a card's run, with changes."""
    return lambda card, *changes: Sweep(processes, card, pristine_stand_in, tmp_path / card.name, *changes)


def assert_all_survived(*sweeps: Sweep, crashes: int) -> None:
    injected, failed = sum(each.injected for each in sweeps), sum(len(each.failed) for each in sweeps)
    print(f"\ncrashes injected {injected}, survived {injected - failed}")
    assert [fault for each in sweeps for fault in each.faults] == []
    assert injected >= crashes  # or the sweep would have proved little


def test_a_run_killed_at_a_sample_of_its_writes_is_made_whole_by_the_same_command(sweep: Callable[..., Sweep]) -> None:
    killed = sweep(ADAM)
    for point in killed.points[::5]:
        killed.crash(point)
    assert_all_survived(killed, crashes=10)


@pytest.mark.slow
def test_a_run_killed_at_any_of_its_writes_is_made_whole_by_the_same_command(sweep: Callable[..., Sweep]) -> None:
    killed, as_well = sweep(ADAM), sweep(SGD)  # which writes by the same calls
    for point in killed.points:
        killed.crash(point)
    for point in as_well.points[::4]:
        as_well.crash(point)
    assert_all_survived(killed, as_well, crashes=55)


@pytest.mark.slow
def test_a_run_killed_again_while_it_is_made_whole_is_made_whole_too(sweep: Callable[..., Sweep]) -> None:
    killed = sweep(ADAM)
    for number, point in enumerate(killed.points[::3]):
        killed.crash(point, again=[1 + 5 * number % 40])  # whichever epoch it goes on from, it writes so often
    for point in killed.points[5::16]:
        killed.crash(point, again=[3, 14, 25, 36])  # and again, and again
    assert_all_survived(killed, crashes=40)


@cards
def test_a_run_writes_by_no_other_system_calls_than_those_it_is_killed_at(
    card: RunCard, sweep: Callable[..., Sweep]
) -> None:
    straight = sweep(card)
    assert unaccounted(straight.ended).total() == 0
    named = {call[2] for call in straight.ended.notes if call[0] == "call"}
    assert files_in(straight.straight)
    for name in files_in(straight.straight):  # what native code wrote would be unknown to Python's audit
        assert any(path.endswith(name) for path in named)


def test_a_write_by_other_means_would_be_noticed(sweep: Callable[..., Sweep]) -> None:
    assert unaccounted(sweep(ADAM, ("writing_by_other_means",)).ended)["open"] == ADAM.epochs


# The sweep can fail: negative controls.


@pytest.mark.parametrize(
    "change, kind, fault",
    [
        ("writing_in_place", ".ckpt", "is damaged"),
        ("writing_in_place", "metrics/", "cannot be read as JSON"),
        ("writing_in_place", "models/", "half a model"),
        ("deleting_before_writing", ".ckpt", "epochs were safe, and there are []"),
        ("leaving_temporary_files", "metrics/", "other files"),
        ("without_optimizer_state", ".ckpt", "another optimizer"),
    ],
)
def test_the_sweep_notices(change: str, kind: str, fault: str, sweep: Callable[..., Sweep]) -> None:
    killed = sweep(ADAM, (change,))
    writes = [point for point in killed.points if point.half and point.call.startswith("write") and kind in point.call]
    killed.crash(writes[-1])  # when the last of these files is half written
    assert killed.injected == 1
    assert any(fault in each for each in killed.faults), killed.faults
