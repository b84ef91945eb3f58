"""How far runs are and how long the rest takes: lib/runs.py, and the fleet's table of it."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from lib import fleet_table
from lib.card import RunCard
from lib.checkpoint import Checkpoints
from lib.errors import StageError
from lib.fleet_plan import Member
from lib.fleet_table import FleetTable
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


def test_the_time_left_is_that_of_the_work_left_at_the_pace_since_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.runs.time", clock := Clock())
    deep = dataclasses.replace(LONG, network="deep", blocks_per_stage=3)  # 20 layers
    runs = [member(LONG, tmp_path), member(deep, tmp_path)]
    trained(runs[0], 5)
    runs[0].look()
    pace = Pace(runs)
    assert pace.summary() == "0 of 2 runs done"  # no pace yet: what an earlier process did says nothing of it
    clock.now += 100
    trained(runs[0], 10)
    runs[0].look()
    assert pace.summary() == "1 of 2 runs done, 8 min left for all"  # 40 of 240 in 100 s


def test_the_start_of_runs_that_begin_together_makes_the_rest_look_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib.runs.time", clock := Clock())
    runs = [member(dataclasses.replace(LONG, seed=seed), tmp_path) for seed in range(2)]
    pace = Pace(runs)
    said = []
    for seconds, epoch in ((500, 1), (30, 2), (30, 3)):  # 500 s go by before the first epochs end
        clock.now += seconds
        for run in runs:
            trained(run, epoch)
            run.look()
            pace.summary()
            said.append(pace.summary())  # a table asks again and again
    assert said[:2] == ["0 of 2 runs done"] * 2
    assert said[3] == "0 of 2 runs done, 4 min left for all"  # 8 epochs of 30 s, not of 530
    assert said[5] == "0 of 2 runs done, 4 min left for all"  # 7 of them: 3.5 min


def test_runs_of_one_epoch_have_a_pace_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.runs.time", clock := Clock())
    runs = [member(dataclasses.replace(CARD, epochs=1, seed=seed), tmp_path) for seed in range(2)]
    pace = Pace(runs)
    clock.now += 100
    trained(runs[0], 1)
    runs[0].look()
    assert pace.summary() == "1 of 2 runs done, 2 min left for all"


def test_as_many_runs_at_once_as_cores_and_memory_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 10**9}.__getitem__)
    assert on_cores() == 3
    monkeypatch.setattr("os.cpu_count", lambda: 2)
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


def test_a_run_that_has_failed_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.runs.time", clock := Clock())
    runs = [member(LONG, tmp_path), member(dataclasses.replace(LONG, seed=9), tmp_path)]
    pace = Pace(runs)
    clock.now += 100
    trained(runs[0], 5)
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


def test_tasks_fill_gpus_as_they_become_free() -> None:
    assert fleet_estimate.makespan([3.0, 2.0, 2.0], 2) == 4.0  # 3 beside 2 + 2
    assert fleet_estimate.makespan([3.0, 2.0, 2.0], 1) == 7.0
