"""How far runs are and how long the rest takes: lib/runs.py, and the fleet's table of it."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from lib.card import RunCard
from lib.checkpoint import Checkpoints
from lib.errors import StageError
from lib.fleet import table as fleet_table
from lib.fleet.members import Member
from lib.fleet.table import FleetTable
from lib.runs import Pace, Run, on_cores
from tests.making import CARD
from tests.test_progress import Clock
from tools import fleet_estimate

LONG = dataclasses.replace(CARD, epochs=10)


def member(card: RunCard, root: Path) -> Member:
    return Member(card, Checkpoints(root, card.name, card.identity("d", {})), b"")


def trained(run: Run, epoch: int) -> None:
    run.checkpoints.folder.mkdir(parents=True, exist_ok=True)
    run.checkpoints.path(epoch).touch()


def test_a_run_is_as_far_as_its_checkpoints_and_no_further_than_its_card_asks(tmp_path: Path) -> None:
    run = member(LONG, tmp_path)
    assert (run.epoch, run.look(), run.work_left) == (0, False, 80)  # 8 layers
    trained(run, 4)
    assert (run.look(), run.look(), run.epoch, run.finished, run.work_left) == (True, False, 4, False, 48)
    trained(run, 10)
    trained(run, 11)  # a longer run's
    assert (run.look(), run.epoch, run.finished) == (True, 10, True)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("lib.runs.time", clock)
    return clock


def test_the_time_left_is_that_of_the_work_left(tmp_path: Path, clock: Clock) -> None:
    deep = dataclasses.replace(LONG, network="deep", blocks_per_stage=3)  # 20 layers to 8
    trained(member(LONG, tmp_path), 5)
    runs = [member(LONG, tmp_path), member(deep, tmp_path)]
    pace = Pace(runs)
    said = []
    for seconds, epoch in ((900, 6), (60, 7), (60, 10)):
        clock.now += seconds
        trained(runs[0], epoch)
        runs[0].look()
        said.append(pace.summary())
    assert said == [
        "0 of 2 runs done",  # neither what an earlier process did, nor the first epoch, with its start, tells a pace
        "0 of 2 runs done, 28 min left for all",  # 8 in 60 s, 24 + 200 left
        "1 of 2 runs done, 12 min left for all",  # 32 in 120 s, 200 left
    ]


def test_runs_side_by_side_tell_the_same_time_whichever_ends_an_epoch_first(tmp_path: Path, clock: Clock) -> None:
    runs = [member(dataclasses.replace(LONG, seed=seed), tmp_path) for seed in range(4)]
    pace = Pace(runs)
    said = []
    for seconds, epoch in ((500, 1), (60, 2), (60, 3)):
        clock.now += seconds
        for run in runs:
            trained(run, epoch)
            run.look()
            pace.summary()  # a table asks again and again
            said.append(pace.summary().rpartition(", ")[2])
            clock.now += 1
        clock.now -= len(runs)
    assert said[:4] == ["0 of 4 runs done"] * 4
    assert said[4:] == [f"{minutes} min left for all" for minutes in (9, 9, 9, 8, 8, 8, 8, 7)]


def test_fewer_runs_than_places_take_as_long_as_the_longest(tmp_path: Path, clock: Clock) -> None:
    runs = [member(dataclasses.replace(LONG, seed=seed), tmp_path) for seed in range(2)]
    pace = Pace(runs)
    for epochs in ((1, 1), (5, 10)):
        clock.now += 120
        for run, epoch in zip(runs, epochs, strict=True):
            trained(run, epoch)
            run.look()
        said = pace.summary()
    assert said == "1 of 2 runs done, 2 min left for all"  # 240 s for 4 + 9 epochs: 92 s for the five left, not half


def test_a_run_that_is_resumed_for_its_last_epoch_tells_no_pace(tmp_path: Path, clock: Clock) -> None:
    runs = [member(dataclasses.replace(LONG, seed=seed), tmp_path) for seed in range(2)]
    trained(runs[0], 9)
    runs = [Run(run.card, run.checkpoints) for run in runs]
    pace = Pace(runs)
    clock.now += 900
    for run, epoch in zip(runs, (10, 1), strict=True):
        trained(run, epoch)
        run.look()
    assert pace.summary() == "1 of 2 runs done"
    clock.now += 60
    trained(runs[1], 2)
    runs[1].look()
    assert pace.summary() == "1 of 2 runs done, 8 min left for all"


def test_as_many_runs_at_once_as_cores_and_memory_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.runs.cores", lambda: 64)
    monkeypatch.setattr("lib.machine.limits.memory", lambda: 13e9)
    assert on_cores() == 3
    monkeypatch.setattr("lib.runs.cores", lambda: 2)
    assert on_cores() == 2


# The fleet's table.


def shown(members: list[Member], height: int) -> str:
    table = FleetTable(members)
    table.console = Console(width=100, height=height, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with table.console.file:
        table.console.print(table.table())
    return table.console.export_text()


def test_the_table_has_every_run_those_at_work_first(tmp_path: Path) -> None:
    waiting, at_work, failed, done = (member(dataclasses.replace(CARD, seed=seed), tmp_path) for seed in range(4))
    at_work.node, at_work.accuracy, at_work.epoch = "n7 GPU 3", 0.4321, 1
    failed.fault = StageError("?")
    done.epoch = CARD.epochs
    lines = shown([waiting, at_work, failed, done], height=40).splitlines()
    rows = [line.split("│")[1:-1] for line in lines if line.startswith("│")]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [at_work.name, "on n7 GPU 3", "1/2", "43.21%"],
        [failed.name, "failed", "0/2", ""],
        [waiting.name, "waiting", "0/2", ""],
        [done.name, "done", "2/2", ""],
    ]
    assert lines[0].startswith("1 of 4 runs done")


def test_a_table_that_is_longer_than_the_screen_says_what_it_leaves_out(tmp_path: Path) -> None:
    members = [member(dataclasses.replace(CARD, seed=seed), tmp_path) for seed in range(160)]
    members[150].node = "n1"
    text = shown(members, height=24)
    assert len(text.splitlines()) < 24
    assert "on n1" in text and "143 more waiting" in text


def test_without_a_terminal_every_epoch_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_table, "SECONDS_BETWEEN_LOOKS", 0)
    with FleetTable([member(CARD, tmp_path)]) as table:
        table.say("a run  epoch 1/2")
        table.look()
    assert capsys.readouterr().out == "a run  epoch 1/2  0 of 1 runs done\n"


def test_a_run_that_has_failed_is_not_waited_for(tmp_path: Path, clock: Clock) -> None:
    runs = [member(LONG, tmp_path), member(dataclasses.replace(LONG, seed=9), tmp_path)]
    pace = Pace(runs)
    for epoch in (1, 5):
        clock.now += 100
        trained(runs[0], epoch)
        runs[0].look()
    runs[1].fault = StageError("the loss became nan")
    assert pace.summary() == "0 of 2 runs done, 2 min left for all"


def test_on_a_terminal_every_event_shows_above_the_table_but_epochs_do_not(tmp_path: Path) -> None:
    table = FleetTable([member(LONG, tmp_path)])
    table.console = Console(force_terminal=True, width=200, highlight=False, file=(screen := io.StringIO()))
    table.live.console = table.console
    with table:
        table.epoch("tiny  epoch 3/10  test accuracy  50.00%  on n1")
        table.say("tiny  FAILED: the loss became nan in epoch 3")
    assert "FAILED: the loss became nan in epoch 3" in screen.getvalue() and "epoch 3/10" not in screen.getvalue()


@pytest.mark.parametrize("options", [["--gpus", "0"], ["--seeds", "-1"], ["--epoch-seconds", "nan"]])
def test_an_estimate_for_nothing_is_refused_by_name(options, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fleet_estimate", *options])
    with pytest.raises(SystemExit) as stopped:
        fleet_estimate.main()
    assert stopped.value.code == 2 and options[0] in capsys.readouterr().err


def test_with_many_gpus_a_study_waits_for_the_driver(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fleet_estimate", "--seeds", "1", "--gpus", "1", "64"])
    monkeypatch.setattr(fleet_estimate, "driver_cost", lambda _: (1, 1.0))  # a byte and a second a checkpoint
    fleet_estimate.main()
    *_, one, many = (line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines())
    assert (one[0], one[2], one[-1]) == ("1", "1.2 h", "36.5%")
    assert (many[0], many[2], many[-1]) == ("64", "27 min", "100.0%")  # 1,600 checkpoints


def test_the_seeds_of_an_estimate_are_those_asked_for_not_times_those_of_the_parameters(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = Path(__file__).parents[1].joinpath("params.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["fleet_estimate", "--seeds", "3"])
    monkeypatch.setattr(fleet_estimate, "driver_cost", lambda _: (1, 1.0))
    (tmp_path / "params.yaml").write_text(params.replace("epochs: 100", "epochs: many"))
    with pytest.raises(SystemExit) as stopped:
        fleet_estimate.main()
    assert stopped.value.code == 2 and "fleet_estimate: params.yaml" in capsys.readouterr().err
    (tmp_path / "params.yaml").write_text(params.replace("\n- 0\n", "\n- 0\n- 1\n"))
    fleet_estimate.main()
    assert capsys.readouterr().out.startswith("48 runs, 4,800 epochs.")


def test_tasks_fill_gpus_as_they_become_free() -> None:
    assert fleet_estimate.makespan([3.0, 2.0, 2.0], 2) == 4.0  # 3 beside 2 + 2
    assert fleet_estimate.makespan([3.0, 2.0, 2.0], 1) == 7.0
