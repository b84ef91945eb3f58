"""tools/study.py as a process, with the processes it starts: all runs side by side, each as if it were alone."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import cifar10
from lib.card import RunCard
from lib.checkpoint import Checkpoints
from lib.errors import Stopped
from lib.files import canonical_json, write_whole
from lib.machine.stopping import Stop
from lib.metrics import read_metrics, write_metrics
from lib.runs import Run
from stages.train import checkpoints_of, outputs_of
from tests.crashing import clean_process
from tests.making import CARD, IC_CARD
from tools import study

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
ENDLESS = dataclasses.replace(CARD, epochs=100_000)


def planned(*cards: RunCard) -> None:
    for card in cards:
        card.write(Path("plan", f"{card.name}.json"))
    write_whole(Path("plan", "study.json"), canonical_json({"runs": [card.name for card in cards]}))


def command(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m", module, *arguments]
    return subprocess.run(start, env=ENVIRONMENT, capture_output=True, text=True)


def outputs() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in ("metrics", "models") for path in Path(folder).iterdir()}


def wait_until(condition: object, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)


def trainings(workplace: Path) -> list[int]:
    """The processes that train in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"stages.train" in (process / "cmdline").read_bytes() and (process / "cwd").resolve() == workplace:
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.fixture
def endless_study(workplace: Path) -> Iterator[subprocess.Popen[str]]:
    """A study that is under way and would not end."""
    planned(ENDLESS)
    study = subprocess.Popen(
        [sys.executable, "-m", "tools.study"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: list(Path("checkpoints").glob("*/epoch-*.ckpt")))
    yield study
    for process in [study.pid, *trainings(workplace)]:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            continue
    study.communicate()


@pytest.mark.slow
def test_all_runs_are_trained_as_each_would_be_alone_and_then_there_is_nothing_left(workplace: Path) -> None:
    cards = [CARD, IC_CARD, dataclasses.replace(IC_CARD, seed=4)]
    planned(*cards)
    study = command("tools.study")
    assert (study.returncode, study.stderr) == (0, "")
    *epochs, last = study.stdout.splitlines()
    assert last.startswith("study: all 3 runs are trained")
    for card in cards:
        assert any(line.startswith(f"{card.name}  epoch 2/2") for line in epochs)
    assert epochs[-1].endswith("3 of 3 runs done, 0 s left for all")
    side_by_side = outputs()
    for folder in ("checkpoints", "metrics", "models"):
        shutil.rmtree(folder)
    assert [clean_process().train(workplace, card).status for card in cards] == [0, 0, 0]
    assert side_by_side == outputs()
    again = command("tools.study")
    assert (again.returncode, again.stdout.splitlines()[:-1]) == (0, [])
    for output in outputs_of(cards[0]):
        output.unlink()
    assert command("tools.study").returncode == 0 and outputs() == side_by_side


def test_a_run_that_lacks_something_is_not_taken_for_done(workplace: Path) -> None:
    planned(CARD)
    assert clean_process().train(workplace, CARD).status == 0
    metrics, weights = outputs_of(CARD)
    checkpoint = max(Path("checkpoints").glob("*/epoch-*.ckpt"))
    run = Run(CARD, checkpoints_of(CARD, cifar10.verified_files(Path("data/cifar10")).sha256))
    assert study.has_results(run)
    for path in (metrics, weights):
        whole = path.read_bytes()
        path.unlink()
        assert not study.has_results(run)
        path.write_bytes(whole.replace(b"0.", b"0.1", 1) if path == metrics else b"another's")
        assert not study.has_results(run)
        path.write_bytes(whole)
    told = read_metrics(metrics)
    write_metrics(metrics, dataclasses.replace(told.facts, epochs=400), told.history)  # of a longer run, killed early
    assert not study.has_results(run)
    assert study.accuracy(run) == f"  test accuracy {told.test_accuracy:7.2%}"
    longer = dataclasses.replace(told.history[-1], epoch=3)  # of another training, as a clone has: not this run's
    write_metrics(metrics, dataclasses.replace(told.facts, epochs=400), (*told.history, longer))
    assert study.accuracy(run) == "" and not study.has_results(run)
    write_metrics(metrics, told.facts, told.history)
    assert study.has_results(run)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    assert not study.has_results(run) and not run.finished


def test_a_stop_is_obeyed_while_it_looks_at_what_is_there(workplace: Path) -> None:
    """Hundreds of checkpoints take a while."""
    planned(CARD)
    stop = Stop("study")
    stop.heard.append(signal.SIGINT)
    with pytest.raises(Stopped):
        list(study.without_results([Run(CARD, Checkpoints(workplace, CARD.name, {}))], stop))


@pytest.mark.slow
def test_a_run_that_fails_does_so_alone_and_is_named(workplace: Path) -> None:
    bad = dataclasses.replace(CARD, network="bad", learning_rate=1e30)
    planned(bad, CARD)
    study = command("tools.study")
    assert study.returncode == 2
    assert f"study: not trained: {bad.name}; the others are." in study.stderr
    assert "learning_rate" in study.stderr  # the run's own line
    assert f"{bad.name}  FAILED: exit status 2" in study.stdout.splitlines()
    assert read_metrics(Path("metrics", f"{CARD.name}.json")).finished


def test_of_runs_side_by_side_that_fail_those_left_are_named_and_the_status_is_that_to_mend(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(CARD, IC_CARD)
    assert clean_process().train(workplace, CARD).status == 0
    monkeypatch.setattr(study, "train", lambda *_: {"the runs on the GPU": 75, "another process": 2})
    monkeypatch.setattr("sys.argv", ["study"])
    with pytest.raises(SystemExit) as ended:
        study.main()
    assert ended.value.code == 2
    assert f"study: not trained: {IC_CARD.name}; the others are." in capsys.readouterr().err


@pytest.mark.slow
def test_a_signal_stops_all_and_the_same_command_goes_on(endless_study: subprocess.Popen[str], workplace: Path) -> None:
    endless_study.terminate()
    assert endless_study.wait(60) == 143
    assert trainings(workplace) == []
    done = max(int(path.stem[6:]) for path in Path("checkpoints").glob("*/epoch-*.ckpt"))
    planned(dataclasses.replace(ENDLESS, epochs=done + 2))
    assert command("tools.study").returncode == 0
    assert f"goes on with {done + 1}" in Path("checkpoints", "study.log").read_text()


@pytest.mark.slow
def test_where_it_is_killed_its_trainings_end_with_it(endless_study: subprocess.Popen[str], workplace: Path) -> None:
    assert trainings(workplace)
    endless_study.kill()
    wait_until(lambda: trainings(workplace) == [])


def test_runs_are_taken_seed_by_seed_and_within_a_seed_in_the_tables_order(tmp_path: Path) -> None:
    cards = [dataclasses.replace(card, seed=seed) for card in (IC_CARD, CARD) for seed in (0, 1)]
    started, _ = study.commands([Run(card, Checkpoints(tmp_path, card.name, {})) for card in cards])
    assert [card for _, each in started for card in each] == [
        f"plan/{card.name}.json" for card in (cards[0], cards[2], cards[1], cards[3])
    ]


@pytest.mark.parametrize(
    ("gpu", "device", "processes", "at_once"),
    [(True, "auto", 1, 1), (True, "cuda", 1, 1), (True, "cpu", 2, 7), (False, "auto", 2, 7), (False, "cpu", 2, 7)],
)
def test_a_gpus_runs_share_a_process_and_a_cpus_have_one_each_of_as_many_as_it_takes(
    gpu: bool, device: str, processes: int, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
    monkeypatch.setattr(study, "on_cores", lambda: 7)
    cards = [dataclasses.replace(card, device=device) for card in (CARD, IC_CARD)]
    started, side_by_side = study.commands([Run(card, Checkpoints(tmp_path, card.name, {})) for card in cards])
    assert (len(started), side_by_side) == (processes, at_once)
    assert sum(len(each) for _, each in started) == 2


@pytest.mark.usefixtures("process_as_it_was")
def test_without_a_plan_it_says_what_makes_one(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["study"])
    with pytest.raises(SystemExit) as ended:
        study.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and line.startswith("study: plan/study.json is not there")
