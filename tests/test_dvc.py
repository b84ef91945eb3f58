"""The pipeline under DVC, end to end: interrupted, as an experiment, from the queue, many commands at once.

Every test has a project of its own, a copy of one in which stages are done already, and types what a user would type.
"""

import contextlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.dvc_project import (
    BASELINE,
    EPOCHS,
    IC,
    LAST,
    TRAINED,
    TRAININGS,
    Background,
    Project,
    cached,
    skipped,
    straight,
    wait_until,
)

pytest_plugins = ("tests.dvc_fixtures",)
pytestmark = pytest.mark.slow


# Interruptions.

INTERRUPTIONS: list[Callable[[Background, psutil.Process], None]] = [
    lambda dvc, trainer: dvc.process.kill(),
    lambda dvc, trainer: dvc.process.terminate(),
    lambda dvc, trainer: trainer.kill(),
    lambda dvc, trainer: trainer.terminate(),
    lambda dvc, trainer: os.killpg(dvc.process.pid, signal.SIGINT),  # Ctrl-C
]


def test_a_repro_interrupted_in_every_way_in_turn_leaves_no_trainer_and_the_same_command_finishes_it_bit_for_bit(
    begun: Project, all_done: Project
) -> None:
    for epoch, interrupt in enumerate(INTERRUPTIONS, start=1):
        with begun.background("repro", **begun.held(LAST, epoch)) as dvc:
            wait_until(lambda epoch=epoch: begun.newest_epoch(LAST) == epoch, "the third run had another epoch done")
            (trainer,) = begun.trainers()
            interrupt(dvc, trainer)
            assert dvc.wait() != 0
            wait_until(lambda: not begun.trainers(), "the trainer ended too")
            assert f"goes on with {epoch}" in dvc.output or epoch == 1
        assert f"train@{LAST}" not in begun.locked()
        assert not (begun.folder / f"models/{LAST}.pt").exists()

    output = begun.dvc("repro")
    assert skipped(BASELINE) in output and skipped(IC) in output
    assert f"goes on with {EPOCHS}" in output and len(TRAINED.findall(output)) == 1
    assert begun.results() == all_done.results()
    assert "up to date" in begun.dvc("status")


def test_where_the_shell_stays_between_dvc_and_the_trainer_an_orphan_is_not_joined_by_a_second_trainer(
    begun: Project, all_done: Project
) -> None:
    """Shells that start the command as a child instead of becoming it: dash before 0.5.11, fish."""
    shell = begun.folder.parent / "shell"
    shell.write_text('#!/bin/sh\n/bin/sh "$@"\nexit $?\n')
    shell.chmod(0o755)
    with begun.background("repro", SHELL=str(shell), **begun.held(LAST, 2)) as dvc:
        wait_until(lambda: begun.newest_epoch(LAST) == 2, "the run had two epochs done")
        (trainer,) = begun.trainers()
        dvc.process.kill()
        dvc.wait()
        output = begun.dvc("repro", status=255)
        assert f"{LAST} is being trained by process {trainer.pid} on " in output
        assert "exited with 75" in output
        trainer.terminate()  # "or end it, then try again"
        wait_until(lambda: not begun.trainers(), "the orphan ended")
    begun.dvc("repro", *TRAININGS)
    assert begun.results("metrics", "models") == all_done.results("metrics", "models")


# Experiments.

TWO = [f"train@{run}" for run in (BASELINE, IC)]


def test_an_experiment_trains_what_the_parameter_changes_and_after_kill_9_the_same_command_goes_on(
    finished: Project, tmp_path: Path
) -> None:
    command = ("exp", "run", "--temp", "--name", "shaky", "-S", "dropout_p=0.1", *TWO)
    of_old = finished.checkpoint_folders(IC)
    with finished.background(*command, **finished.held(IC, 2)) as dvc:
        wait_until(lambda: finished.newest_epoch(IC, of_old) == 2, "the experiment had two epochs done")
        dvc.process.kill()
        dvc.wait()
        wait_until(lambda: not finished.trainers(), "the trainer ended too")
    assert f"{next(iter(of_old)).name} is of this run with another dropout_p: not used" in dvc.output

    output = finished.dvc(*command)
    assert skipped(BASELINE) in output
    assert "goes on with 3" in output and len(TRAINED.findall(output)) == EPOCHS - 2
    assert finished.run("git", "status", "--porcelain") == ""  # the workspace stays out of it
    finished.dvc("exp", "apply", "shaky")
    other = {"dropout_p": 0.1, "orderings": ["baseline", "conv_relu_ic"]}
    assert straight(finished, tmp_path / "straight", **other).items() <= finished.results("metrics", "models").items()


def test_an_experiment_from_the_queue_finishes_and_the_workspace_takes_it_over_without_training(
    finished: Project,
) -> None:
    before, of_old = finished.results("metrics"), finished.checkpoint_folders(IC)
    finished.dvc("exp", "run", "--queue", "-S", "dropout_p=0.2", *TWO)
    finished.dvc("queue", "start")
    try:
        wait_until(lambda: finished.newest_epoch(IC, of_old) == EPOCHS, "the run was through")
        wait_until(lambda: re.search("Success|Failed", finished.dvc("queue", "status")), "the queue was through")
        assert "Success" in finished.dvc("queue", "status")
    finally:
        finished.dvc("queue", "stop", "--kill")
        wait_until(lambda: not finished.trainers(), "no trainer was left")
    output = finished.dvc("exp", "run", "-S", "dropout_p=0.2", *TWO)
    assert skipped(BASELINE) in output and cached(IC) in output
    assert not TRAINED.search(output)
    after = finished.results("metrics")
    assert {path for path in after if after[path] != before[path]} == {f"metrics/{IC}.json"}


# Many at once.


def test_many_runs_at_once_are_all_recorded_and_equal_to_one_after_the_other(begun: Project, tmp_path: Path) -> None:
    seeds = [1, 2]
    study = {"seeds": seeds, "orderings": ["baseline"], "epochs": 2, "train_images": 64}
    runs = [f"tiny-baseline-{seed}" for seed in seeds]
    begun.configure(**study)
    begun.dvc("repro", "plan", "download")
    with contextlib.ExitStack() as stack:
        commands = [
            stack.enter_context(begun.background("--wait-for-lock", "repro", "-s", f"train@{run}")) for run in runs
        ]
        for dvc in commands:
            assert dvc.wait() == 0, dvc.output
    assert begun.locked() >= {f"train@{run}" for run in runs}
    output = begun.dvc("repro", "train")
    assert all(skipped(run) in output for run in runs)
    assert not TRAINED.search(output)
    assert "up to date" in begun.dvc("status", "train")
    ours = {path: content for path, content in begun.results("metrics", "models").items() if Path(path).stem in runs}
    assert ours == straight(begun, tmp_path / "straight")
