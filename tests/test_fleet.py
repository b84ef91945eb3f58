"""The fleet's decisions, on an engine that does what a test says: no Ray, no process, no training."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lib import lock
from lib.card import RunCard
from lib.checkpoint import Checkpoints, Snapshot, read_checkpoint
from lib.errors import BadInput, Stopped
from lib.fleet import driver
from lib.fleet.driver import DEATHS, Fleet
from lib.fleet.members import Member, held, jobs_for
from lib.fleet.worker import Began, Came, Ended, Order
from lib.machine.device import Circumstances
from lib.metrics import EpochRecord
from lib.turns import AT_ONCE
from tests.making import CARD, IC_CARD

VERSIONS = {"Python": "3.11", "ray": "2", "torch": "2.14"}
HERE = Circumstances("2.14", "cpu", "AVX2", 1)


@dataclasses.dataclass
class Lost:
    """As lib.fleet.cluster has it, which imports Ray."""

    reason: str


def member(card: RunCard, folder: Path = Path("checkpoints")) -> Member:
    return Member(card, Checkpoints(folder, card.name, card.identity("d" * 64, {"lib/ic.py": "c" * 64})), b"card")


def checkpoint(of: Member, epoch: int, elsewhere: Path) -> Came:
    """What a node sends of a run's epoch."""
    history = tuple(EpochRecord(each, 0.1, 1.0, 0.5, 1.0, each / 100) for each in range(1, epoch + 1))
    made = Checkpoints(elsewhere, of.name, of.checkpoints.identity)
    made.folder.mkdir(parents=True, exist_ok=True)
    made.save(Snapshot(history, {"weight": torch.full((3,), float(epoch))}, {0: {"step": epoch}}, (HERE,)))
    return Came(of.name, made.path(epoch).name, made.path(epoch).read_bytes())


class ScriptedEngine:
    """An engine whose tasks live as a script says: one list of news for each task, in the order in which they start.

    A task's number is its name. News come as from a real task: the first at the start, each later one when asked for.
    """

    def __init__(self, *scripts: Sequence[Any], gpus: int = 0) -> None:
        self.scripts = [list(script) for script in scripts]
        self.gpus = gpus
        self.orders: list[list[str]] = []  # of each task, its runs
        self.avoided: list[Collection[str]] = []  # of each task, nodes
        self.given: list[Mapping[str, tuple[str, bytes]]] = []  # of each task that has begun, its checkpoints
        self.asked: list[int] = []
        self.ended: list[int] = []

    def start(self, orders: Sequence[Order], gpu: bool, avoid: Collection[str]) -> int:
        self.avoided.append(avoid)
        self.orders.append([order.run for order in orders])
        self.asked.append(len(self.orders) - 1)
        return len(self.orders) - 1

    def train(self, task: int, checkpoints: Mapping[str, tuple[str, bytes]]) -> None:
        self.given.append(checkpoints)
        self.asked.append(task)

    def more(self, task: int) -> None:
        self.asked.append(task)

    def end(self, task: int) -> None:
        self.ended.append(task)

    def news(self, seconds: float) -> Iterable[tuple[int, Any]]:
        task = self.asked.pop(0)
        return [(task, self.scripts[task].pop(0))]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Member:
    monkeypatch.chdir(tmp_path)
    return member(CARD)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "PAUSE", 0)


def began(node: str, versions: Mapping[str, str] = VERSIONS) -> Began:
    return Began(node, dict(versions), f"id of {node}")


BEGAN = began("n1")


class Said(list[str]):
    """A display that keeps what it is told."""

    def epoch(self, line: str) -> None:
        self.append(line)

    def say(self, line: str) -> None:
        self.append(line)


def go(engine: ScriptedEngine, *members: Member) -> list[str]:
    """Train members on an engine, under their locks; what was said."""
    said = Said()
    with held(members):
        Fleet(members, engine, VERSIONS, said).train(lambda: None)
    return said


# Who trains what.


def test_without_gpus_every_run_is_a_task_the_longest_first(run: Member) -> None:
    deep = member(dataclasses.replace(CARD, network="deep", blocks_per_stage=3))
    long = member(dataclasses.replace(CARD, network="long", epochs=9))
    jobs = jobs_for([run, deep, long], gpus=0)
    assert [[each.name for each in job.members] for job in jobs] == [[long.name], [deep.name], [run.name]]
    assert not any(job.gpu for job in jobs)


@pytest.mark.parametrize("gpus", [1, 2, 3, 8, 64])
@pytest.mark.parametrize("runs", [1, 5, 16, 160])
def test_gpus_share_all_runs_evenly_and_none_takes_more_at_once_than_training_does(
    run: Member, runs: int, gpus: int
) -> None:
    cards = [dataclasses.replace(CARD, seed=each, device="auto", blocks_per_stage=1 + each % 4) for each in range(runs)]
    members = [member(card) for card in cards]
    jobs = jobs_for(members, gpus)
    assert sorted(each.name for job in jobs for each in job.members) == sorted(each.name for each in members)
    assert all(1 <= len(job.members) <= AT_ONCE and job.gpu for job in jobs)
    assert len(jobs) >= min(runs, gpus)
    loads = [sum(each.work_left for each in job.members) for job in jobs]
    assert max(loads) - min(loads) <= max(each.work_left for each in members)


def test_a_card_for_the_cpu_gets_no_gpu_and_a_run_that_is_done_no_task(run: Member, tmp_path: Path) -> None:
    done = member(dataclasses.replace(IC_CARD, device="auto"))
    done.epoch = done.card.epochs
    (job,) = jobs_for([run, done], gpus=4)
    assert (job.members, job.gpu) == ((run,), False)


# What comes home.


def test_checkpoints_come_home_as_training_itself_would_have_left_them(run: Member, tmp_path: Path) -> None:
    run = member(dataclasses.replace(CARD, epochs=4))
    sent = [checkpoint(run, epoch, tmp_path / "node") for epoch in (1, 2, 4)]  # 3 was gone before it could be read
    said = go(ScriptedEngine([BEGAN, *sent, Ended(0, "")]), run)
    assert run.finished and run.status == "done"
    assert run.checkpoints.epochs(99) == [4, 2]  # two are kept
    assert run.checkpoints.path(4).read_bytes() == sent[-1].content
    assert said == [f"{run.name}  epoch {n}/4  test accuracy {n / 100:7.2%}  on n1" for n in (1, 2, 4)]


def test_a_run_goes_on_from_what_is_here(run: Member, tmp_path: Path) -> None:
    run.checkpoints.folder.mkdir(parents=True)
    run.keep(one := checkpoint(run, 1, tmp_path / "node"))
    engine = ScriptedEngine([BEGAN, checkpoint(run, 2, tmp_path / "node"), Ended(0, "")])
    go(engine, run)
    assert engine.given == [{run.name: (one.file, one.content)}]


def test_what_is_damaged_on_the_way_is_not_kept_and_the_run_goes_on_from_the_one_before(
    run: Member, tmp_path: Path
) -> None:
    one, two = (checkpoint(run, epoch, tmp_path / "node") for epoch in (1, 2))
    flipped = bytearray(two.content)
    flipped[len(flipped) // 2] ^= 1
    damaged = dataclasses.replace(two, content=bytes(flipped))
    engine = ScriptedEngine([BEGAN, one, damaged], [BEGAN, two, Ended(0, "")])
    said = go(engine, run)
    assert run.finished and "SHA-256" in said[1]
    assert engine.given == [{}, {run.name: (one.file, one.content)}]
    assert read_checkpoint(run.checkpoints.path(2)).epoch == 2


def test_another_runs_checkpoint_is_not_kept(run: Member, tmp_path: Path) -> None:
    stranger = dataclasses.replace(checkpoint(member(IC_CARD), 2, tmp_path / "node"), run=run.name)
    go(ScriptedEngine(*[[BEGAN, stranger]] * DEATHS), run)
    assert run.fault and "of another run" in str(run.fault) and run.checkpoints.epochs(99) == []


# What is tried again, and what is not.


@pytest.mark.parametrize("end", [Lost("the node died"), Ended(-9, ""), Ended(143, ""), Ended(75, "train: busy")])
def test_a_death_that_blames_no_run_is_tried_again_from_the_last_checkpoint(
    run: Member, tmp_path: Path, end: Any
) -> None:
    one, two = (checkpoint(run, epoch, tmp_path / "node") for epoch in (1, 2))
    engine = ScriptedEngine([BEGAN, one, end], [began("n2"), two, Ended(0, "")])
    said = go(engine, run)
    assert run.finished and run.fault is None
    assert engine.given[1] == {run.name: (one.file, one.content)}
    assert said[1].startswith(f"{run.name}  lost n1") and said[2].endswith("on n2")
    assert engine.ended == [0, 1]


def test_deaths_without_an_epoch_in_between_end_it_and_an_epoch_forgives_those_before(
    run: Member, tmp_path: Path
) -> None:
    dies = [BEGAN, Lost("gone")]
    lives = [BEGAN, checkpoint(run, 1, tmp_path / "node"), Lost("gone")]
    engine = ScriptedEngine(*[dies] * (DEATHS - 1), lives, *[dies] * (DEATHS - 1))
    go(engine, run)
    assert run.fault and run.fault.status == 75 and "died 3 times" in str(run.fault)
    assert len(engine.orders) == 2 * DEATHS - 1


@pytest.mark.parametrize("status, log", [(2, "some\ntrain: the loss became nan in epoch 1\n"), (1, "KeyError: 'x'\n")])
def test_a_run_that_fails_for_its_own_reason_fails_alone(run: Member, tmp_path: Path, status: int, log: str) -> None:
    other = member(IC_CARD)
    fine = [BEGAN, checkpoint(other, 2, tmp_path / "node"), Ended(0, "")]
    engine = ScriptedEngine([BEGAN, Ended(status, log)], fine, [BEGAN, Ended(status, log)])
    go(engine, run, other)
    assert run.fault and run.fault.status == status and run.status == "failed"
    assert str(run.fault) == log.splitlines()[-1].removeprefix("train: ")
    assert other.finished


def test_a_node_whose_disk_is_full_fails_no_run(run: Member, tmp_path: Path) -> None:
    full = Ended(2, "train: checkpoints/x needs 100 MB and its disk has 3 MB left\n")
    fine = [began("n2"), checkpoint(run, 2, tmp_path / "node"), Ended(0, "")]
    said = go(ScriptedEngine([BEGAN, full], fine), run)
    assert run.finished and run.fault is None
    assert "3 MB left (n1): tried once more" in said[0]


@pytest.mark.parametrize(
    ("ends", "avoided"),
    [
        ([Ended(2, "train: the disk is full\n")], [set(), {"id of n1"}]),
        ([Lost("gone"), Lost("gone")], [set(), set(), {"id of n1"}]),
    ],
    ids=["failed", "died twice"],
)
def test_a_run_is_tried_again_on_another_node_than_where_it_failed(
    run: Member, tmp_path: Path, ends: Sequence[Any], avoided: list[set[str]]
) -> None:
    """The node that fails at once is always the one that is free."""
    on_good = [began("n2"), checkpoint(run, 2, tmp_path / "node"), Ended(0, "")]
    engine = ScriptedEngine(*([BEGAN, end] for end in ends), on_good)
    go(engine, run)
    assert run.finished and engine.avoided == avoided


def test_that_a_training_was_killed_is_said(run: Member, tmp_path: Path) -> None:
    said = go(ScriptedEngine(*[[BEGAN, Ended(-9, "run 1 of 1  epoch 3/100  30 min left")]] * DEATHS), run)
    assert "lost n1 (killed by SIGKILL (was memory short?))" in said[0]
    assert "without an epoch in between (killed by SIGKILL" in str(run.fault)


def test_of_several_runs_on_a_gpu_only_the_one_that_is_named_fails(tmp_path: Path, run: Member) -> None:
    bad, fine = (member(dataclasses.replace(card, device="auto")) for card in (CARD, IC_CARD))
    log = f"train: {bad.name}: the loss became nan\ntrain: 1 of 2 runs failed: {bad.name}; the others are done\n"
    again = [BEGAN, Ended(2, "train: the loss became nan\n")]
    engine = ScriptedEngine([BEGAN, checkpoint(fine, 2, tmp_path / "node"), Ended(2, log)], again, gpus=1)
    go(engine, bad, fine)
    assert str(bad.fault) == "the loss became nan" and fine.finished
    assert engine.orders == [[bad.name, fine.name], [bad.name]]


def test_what_ends_all_of_a_task_again_and_again_is_found_by_trying_each_alone(tmp_path: Path, run: Member) -> None:
    bad, fine = (member(dataclasses.replace(card, device="auto")) for card in (CARD, IC_CARD))
    both = [BEGAN, Ended(75, f"train: {bad.name}: the loss became nan\ntrain: 2 of 2 runs failed: ...\n")]
    nan = [BEGAN, Ended(2, "train: the loss became nan\n")]
    well = [BEGAN, checkpoint(fine, 2, tmp_path / "node"), Ended(0, "")]
    engine = ScriptedEngine(both, both, nan, well, nan, gpus=1)
    go(engine, bad, fine)
    assert bad.fault and (str(bad.fault), bad.fault.status) == ("the loss became nan", 2) and fine.finished


def test_where_one_of_several_takes_the_process_down_each_is_tried_alone(tmp_path: Path, run: Member) -> None:
    bad, fine = (member(dataclasses.replace(card, device="auto")) for card in (CARD, IC_CARD))
    engine = ScriptedEngine(
        [BEGAN, Ended(1, "RuntimeError: ?")],
        [BEGAN, Ended(1, "RuntimeError: ?")],
        [BEGAN, checkpoint(fine, 2, tmp_path / "node"), Ended(0, "")],
        gpus=1,
    )
    go(engine, bad, fine)
    assert engine.orders == [[bad.name, fine.name], [bad.name], [fine.name]]
    assert str(bad.fault) == "RuntimeError: ?" and fine.finished and fine.fault is None


def test_a_node_with_other_versions_ends_all_in_one_line(run: Member) -> None:
    with pytest.raises(BadInput, match=r"n1 has torch 2\.13, here is 2\.14: .*requirements-fleet\.txt"):
        go(ScriptedEngine([began("n1", VERSIONS | {"torch": "2.13"})]), run)


def test_a_gpu_that_torch_does_not_see_is_named(run: Member, tmp_path: Path) -> None:
    on_gpu = member(dataclasses.replace(CARD, device="auto"))
    said = go(ScriptedEngine([BEGAN, checkpoint(on_gpu, 2, tmp_path / "node"), Ended(0, "")], gpus=1), on_gpu)
    assert all(line.endswith("on n1, whose GPU PyTorch does not see: on its CPU") for line in said) and len(said) == 2


def test_that_no_node_has_a_place_is_said_once(run: Member, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "IDLE", -1)
    fine = [BEGAN, checkpoint(run, 2, tmp_path / "node"), Ended(0, "")]
    said = go(ScriptedEngine(fine), run)
    assert ["nothing is under way" in line for line in said] == [True, False]


# What is here already.


def test_a_run_that_only_looks_finished_is_trained(run: Member, tmp_path: Path) -> None:
    run.checkpoints.folder.mkdir(parents=True)
    run.checkpoints.path(run.card.epochs).write_bytes(b"")
    run.look()
    assert run.finished
    engine = ScriptedEngine([BEGAN, checkpoint(run, 2, tmp_path / "node"), Ended(0, "")])
    go(engine, run)
    assert engine.orders == [[run.name]] and run.finished


def test_a_disk_that_is_full_here_ends_in_one_line(run: Member, tmp_path: Path) -> None:
    run.checkpoints.path(1).mkdir(parents=True)  # in the way
    with pytest.raises(BadInput, match="could not be written"):
        run.keep(checkpoint(run, 1, tmp_path / "node"))


# The lock.


def test_a_run_that_another_process_trains_fails_with_75_and_the_others_go_on(run: Member, tmp_path: Path) -> None:
    other = member(IC_CARD)
    with run.checkpoints.held():
        engine = ScriptedEngine([BEGAN, checkpoint(other, 2, tmp_path / "node"), Ended(0, "")])
        go(engine, run, other)
    assert run.fault and run.fault.status == 75 and "is being trained by process" in str(run.fault)
    assert other.finished


def test_the_folders_are_held_while_the_fleet_trains_and_free_afterwards(run: Member) -> None:
    def stop() -> None:
        assert lock.holder(run.checkpoints.folder)
        raise Stopped("stopped", 15)

    with pytest.raises(Stopped), held([run]):
        Fleet([run], ScriptedEngine([BEGAN]), VERSIONS, Said()).train(stop)
    assert lock.holder(run.checkpoints.folder) is None
