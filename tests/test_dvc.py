"""The pipeline under DVC, end to end: interrupted, in parallel, as an experiment, after an edit, on damaged data.

Every test has a project of its own, a copy of one in which stages are done already, and types what a user would type.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.dvc_project import EPOCHS, RUNS, Background, Project, wait_until

pytestmark = pytest.mark.slow

BASELINE, IC, LAST = RUNS
TRAININGS = [f"train@{run}" for run in RUNS]  # as a target: all but the report, which is drawn in seconds
TRAINED = re.compile(r"^run .* epoch \d+/\d+ ", re.MULTILINE)  # the line that each epoch ends with


def skipped(run: str) -> str:
    return f"Stage 'train@{run}' didn't change, skipping"


def cached(run: str) -> str:
    return f"Stage 'train@{run}' is cached - skipping run"


@pytest.fixture(scope="session")
def two_runs_done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Made once; tests get copies."""
    project = Project.new(tmp_path_factory.mktemp("two-runs-done") / "project")
    project.dvc("repro", f"train@{BASELINE}", f"train@{IC}")
    return project


@pytest.fixture(scope="session")
def all_done(two_runs_done: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The undisturbed one, committed. Made once; tests get copies."""
    project = two_runs_done.copy(tmp_path_factory.mktemp("all-done") / "project")
    project.dvc("repro")
    project.commit()
    return project


@pytest.fixture
def begun(two_runs_done: Project, tmp_path: Path) -> Project:
    """Two of three runs are done."""
    return two_runs_done.copy(tmp_path / "project")


@pytest.fixture
def finished(all_done: Project, tmp_path: Path) -> Project:
    """All is done and committed."""
    return all_done.copy(tmp_path / "project")


def straight(project: Project, folder: Path, **params: object) -> dict[str, bytes]:
    """Metrics and models of an undisturbed training of a project's runs without DVC, with its parameters or others."""
    other = project.copy(folder)
    for name in ("checkpoints", "metrics", "models"):
        shutil.rmtree(other.folder / name)
    other.configure(**params)
    other.run("python", "-m", "stages.plan")
    study = json.loads((other.folder / "plan/study.json").read_text())
    output = other.train_without_dvc(*study["runs"])
    assert len(TRAINED.findall(output)) == len(study["runs"]) * study["epochs"]
    return other.results("metrics", "models")


# Interruptions.

Interrupt = Callable[[Background, psutil.Process], None]
INTERRUPTIONS: dict[str, Interrupt] = {
    "kill -9 of dvc": lambda dvc, trainer: os.kill(dvc.process.pid, signal.SIGKILL),
    "kill -15 of dvc": lambda dvc, trainer: os.kill(dvc.process.pid, signal.SIGTERM),
    "kill -9 of the trainer": lambda dvc, trainer: trainer.kill(),
    "kill -15 of the trainer": lambda dvc, trainer: trainer.terminate(),
    "Ctrl-C": lambda dvc, trainer: os.killpg(dvc.process.pid, signal.SIGINT),
}


def interrupted(project: Project, dvc: Background, interruption: str, after: int) -> int:
    """Interrupt the last run's training once it has got past an epoch; the epoch it had reached then."""
    wait_until(lambda: project.newest_epoch(LAST) > after, "the third run had another epoch done")
    (trainer,) = project.trainers()
    INTERRUPTIONS[interruption](dvc, trainer)
    assert dvc.wait() != 0, interruption
    wait_until(lambda: not project.trainers(), "the trainer ended too")
    assert f"train@{LAST}" not in project.locked()
    assert not (project.folder / f"models/{LAST}.pt").exists()
    return project.newest_epoch(LAST)


def test_a_killed_repro_leaves_no_trainer_behind_and_the_same_command_finishes_it_bit_for_bit(
    begun: Project, all_done: Project
) -> None:
    with begun.background("repro") as dvc:
        reached = interrupted(begun, dvc, "kill -9 of dvc", after=1)
    assert reached < EPOCHS, "the run went on to its end: the trainer outlived dvc, or the signal came too late"

    output = begun.dvc("repro")
    assert skipped(BASELINE) in output and skipped(IC) in output
    assert f"goes on with {reached + 1}" in output
    assert len(TRAINED.findall(output)) == EPOCHS - reached
    assert begun.results() == all_done.results()
    assert "up to date" in begun.dvc("status")


def test_a_repro_interrupted_in_every_way_in_turn_is_finished_by_the_same_command_bit_for_bit(
    begun: Project, tmp_path: Path
) -> None:
    command, reached = ("repro", "plan", f"train@{LAST}"), 0
    begun.configure(epochs=1000)  # so that no signal comes too late
    for interruption, shell in [*((each, "/bin/sh") for each in INTERRUPTIONS), ("kill -9 of dvc", "/bin/bash")]:
        with begun.background(*command, SHELL=shell) as dvc:
            before, reached = reached, interrupted(begun, dvc, interruption, after=reached)
            assert f"goes on with {before + 1}" in dvc.output or before == 0, interruption
        assert reached < 1000, f"{interruption}: the run went on to its end"

    begun.configure(epochs=reached + 1)
    assert f"goes on with {reached + 1}" in begun.dvc("repro")
    assert begun.results("metrics", "models") == straight(begun, tmp_path / "straight")
    assert "up to date" in begun.dvc("status")


def test_where_the_shell_stays_between_dvc_and_the_trainer_an_orphan_is_not_joined_by_a_second_trainer(
    begun: Project, all_done: Project
) -> None:
    """Shells that start the command as a child instead of becoming it: dash before 0.5.11, fish."""
    shell = begun.folder.parent / "shell"
    shell.write_text('#!/bin/sh\n/bin/sh "$@"\nexit $?\n')
    shell.chmod(0o755)
    begun.configure(epochs=1000)  # so that the orphan is at work still when the second command comes
    with begun.background("repro", "plan", f"train@{LAST}", SHELL=str(shell)) as dvc:
        wait_until(lambda: begun.newest_epoch(LAST) >= 2, "the run had two epochs done")
        (trainer,) = begun.trainers()
        dvc.process.kill()
        dvc.wait()
        begun.configure(epochs=EPOCHS)
        output = begun.dvc("repro", status=255)
        assert f"{LAST} is being trained by process {trainer.pid} on " in output
        assert "exited with 75" in output
        trainer.terminate()  # "or end it, then try again"
        wait_until(lambda: not begun.trainers(), "the orphan ended")
    begun.dvc("repro", "plan", *TRAININGS)
    assert begun.results("metrics", "models") == all_done.results("metrics", "models")


# Experiments.


def test_an_experiment_trains_what_the_parameter_changes_and_after_kill_9_the_same_command_goes_on(
    finished: Project, tmp_path: Path
) -> None:
    command = ("exp", "run", "--temp", "--name", "shaky", "-S", "dropout_p=0.1", *TRAININGS)
    of_old = finished.checkpoint_folders(IC)
    with finished.background(*command) as dvc:
        wait_until(lambda: finished.newest_epoch(IC, of_old) >= 2, "the experiment had two epochs done")
        dvc.process.kill()
        dvc.wait()
        wait_until(lambda: not finished.trainers(), "the trainer ended too")
    reached = finished.newest_epoch(IC, of_old)
    assert reached < EPOCHS, "the run went on to its end: the trainer outlived dvc, or the signal came too late"
    assert f"{next(iter(of_old)).name} is of this run with another dropout_p: not used" in dvc.output

    output = finished.dvc(*command)
    assert skipped(BASELINE) in output
    assert f"goes on with {reached + 1}" in output
    assert len(TRAINED.findall(output)) == EPOCHS - reached + EPOCHS
    assert finished.run("git", "status", "--porcelain") == ""  # the workspace stays out of it
    finished.dvc("exp", "apply", "shaky")
    assert finished.results("metrics", "models") == straight(finished, tmp_path / "straight", dropout_p=0.1)


def test_an_experiment_from_the_queue_finishes_and_the_workspace_takes_it_over_without_training(
    finished: Project,
) -> None:
    before, of_old = finished.results("metrics"), finished.checkpoint_folders(LAST)
    finished.dvc("exp", "run", "--queue", "-S", "dropout_p=0.2", *TRAININGS)
    finished.dvc("queue", "start")
    try:
        wait_until(lambda: finished.newest_epoch(LAST, of_old) == EPOCHS, "the last run was through")
        wait_until(lambda: re.search("Success|Failed", finished.dvc("queue", "status")), "the queue was through")
        assert "Success" in finished.dvc("queue", "status")
    finally:
        finished.dvc("queue", "stop", "--kill")
        wait_until(lambda: not finished.trainers(), "no trainer was left")
    output = finished.dvc("exp", "run", "-S", "dropout_p=0.2", *TRAININGS)
    assert skipped(BASELINE) in output and cached(IC) in output and cached(LAST) in output
    assert not TRAINED.search(output)
    after = finished.results("metrics")
    assert {path for path in after if after[path] != before[path]} == {f"metrics/{IC}.json", f"metrics/{LAST}.json"}


# Many at once.


def test_many_runs_at_once_are_all_recorded_and_equal_to_one_after_the_other(begun: Project, tmp_path: Path) -> None:
    seeds = list(range(1, 7))
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


# What is there already.


def test_a_run_that_was_trained_without_dvc_is_collected(begun: Project, all_done: Project) -> None:
    assert TRAINED.search(begun.train_without_dvc(LAST))
    (begun.folder / f"metrics/{LAST}.json").unlink()  # as if only checkpoints/ had been brought from elsewhere
    (begun.folder / f"models/{LAST}.pt").unlink()
    output = begun.dvc("repro", *TRAININGS)
    assert f"epochs 1 to {EPOCHS} are in " in output and "nothing is left to train" in output
    assert not TRAINED.search(output)
    assert begun.results("metrics", "models") == all_done.results("metrics", "models")


def test_more_epochs_continue_a_run_and_equal_a_straight_one(finished: Project, tmp_path: Path) -> None:
    finished.configure(epochs=EPOCHS + 2)
    output = finished.dvc("repro", *TRAININGS)
    assert output.count(f"goes on with {EPOCHS + 1}") == len(RUNS)
    assert len(TRAINED.findall(output)) == 2 * len(RUNS)
    assert finished.results("metrics", "models") == straight(finished, tmp_path / "straight")


def test_fewer_epochs_are_not_answered_with_the_longer_run(finished: Project, tmp_path: Path) -> None:
    finished.configure(epochs=2, orderings=["baseline"])
    finished.dvc("repro", f"train@{BASELINE}")
    shorter = straight(finished, tmp_path / "straight")
    assert {path: finished.results("metrics", "models")[path] for path in shorter} == shorter


def test_a_second_seed_trains_only_its_own_runs_and_gives_the_table_its_statistics(finished: Project) -> None:
    assert "supports no claim" in (finished.folder / "plots/table1.md").read_text()
    before = finished.results("metrics", "models")
    output = finished.dvc("exp", "run", "-S", "seeds=[0,1]")
    assert all(skipped(run) in output for run in RUNS)
    assert len(TRAINED.findall(output)) == EPOCHS * len(RUNS)
    assert before.items() < finished.results("metrics", "models").items()
    table = (finished.folder / "plots/table1.md").read_text()
    assert "supports no claim" not in table and "n = 2 seeds, 6 of 6 runs" in table
    assert table.count(" ± ") >= 3 and table.count("/2 |") == 2
    first = finished.results("plots")
    finished.dvc("repro", "--force", "--single-item", "report")
    assert finished.results("plots") == first


# Edits of the code.


def test_an_edit_that_changes_results_trains_anew_and_taking_it_back_brings_the_old_ones_from_the_cache(
    finished: Project,
) -> None:
    before, of_old = finished.results("metrics", "models"), finished.checkpoint_folders(IC)
    text = (finished.folder / "lib/ic.py").read_text()
    finished.edit("lib/ic.py", "nn.BatchNorm2d(channels)", "nn.BatchNorm2d(channels, eps=0.1)")
    output = finished.dvc("repro", f"train@{IC}")
    assert len(TRAINED.findall(output)) == EPOCHS
    assert "nothing is left to train" not in output
    assert f"{next(iter(of_old))} is of this run with another lib/ic.py: not used" in output
    after = finished.results("metrics", "models")
    assert {path for path in after if after[path] != before[path]} == {f"metrics/{IC}.json", f"models/{IC}.pt"}

    (finished.folder / "lib/ic.py").write_text(text)
    assert cached(IC) in finished.dvc("repro", f"train@{IC}")
    assert finished.results("metrics", "models") == before


def test_a_better_comment_costs_no_training(finished: Project, all_done: Project) -> None:
    path = finished.folder / "lib/ic.py"
    path.write_text(path.read_text() + "\n# A better comment.\n")
    assert "modified:           lib/ic.py" in finished.dvc("status", f"train@{IC}")
    output = finished.dvc("repro")
    assert output.count("nothing is left to train") == len(RUNS)
    assert not TRAINED.search(output)
    assert finished.results() == all_done.results()


def test_the_page_is_kept_by_dvc_and_committing_results_leaves_it_as_it_is(finished: Project) -> None:
    page = finished.folder / "plots/report.html"
    before = page.read_bytes()
    assert "plots/report.html" not in finished.run("git", "ls-files", "plots").split()
    assert finished.run("git", "status", "--porcelain") == ""
    finished.dvc("repro", "--force", "--single-item", "report")  # it was made before the results were committed
    assert page.read_bytes() == before
    page.unlink()
    finished.dvc("checkout", "plots/report.html")
    assert page.read_bytes() == before


# When a stage fails.


def test_one_run_that_fails_does_not_keep_the_others_from_being_done(finished: Project) -> None:
    finished.configure(epochs=EPOCHS + 1)
    (folder,) = finished.checkpoint_folders(IC)
    with (folder / ".lock").open("rb") as held:  # somebody else trains it
        fcntl.flock(held, fcntl.LOCK_EX)
        output = finished.dvc("repro", "--keep-going", status=255)
        assert f"{IC} is being trained by " in output and "exited with 75" in output
        assert output.count(f"goes on with {EPOCHS + 1}") == 2  # the others
        assert "Running stage 'report'" not in output
        report = finished.dvc("repro", "-s", "report")
        assert f"missing, train them by `dvc repro`: {IC}" in report
        assert "2 of 3 runs" in (finished.folder / "plots/table1.md").read_text()
    output = finished.dvc("repro")
    assert skipped(BASELINE) in output and skipped(LAST) in output
    assert len(TRAINED.findall(output)) == 1
    assert "3 of 3 runs" in (finished.folder / "plots/table1.md").read_text()


def test_a_loss_that_is_no_number_stops_its_run_and_is_never_taken_for_a_result(finished: Project) -> None:
    finished.configure(learning_rate=1e20, optimizer="sgd")
    output = finished.dvc("repro", "--keep-going", status=255)
    assert output.count("exited with 2") >= 1 and "lower learning_rate" in output
    assert not list((finished.folder / "models").glob("*.pt"))
    finished.run("git", "checkout", "params.yaml")
    output = finished.dvc("repro")  # back to what was: nothing is to be trained
    assert not TRAINED.search(output)
    assert "up to date" in finished.dvc("status")


def damage(project: Project, name: str) -> Path:
    """Flip a bit of a data file in DVC's cache, which is write-protected: a disk does not ask."""
    md5 = hashlib.md5((project.folder / "data/cifar10/cifar-10-batches-py" / name).read_bytes()).hexdigest()
    path = project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
    return path


def check_out_data(project: Project) -> None:
    shutil.rmtree(project.folder / "data/cifar10")
    project.dvc("checkout", "data/cifar10")


@pytest.mark.parametrize("link", ["copy", "hardlink"])
def test_a_flipped_bit_in_the_cache_that_dvc_overlooks_is_found_and_the_cure_works_as_it_is_written(
    link: str, finished: Project
) -> None:
    finished.dvc("config", "cache.type", link)
    damage(finished, "data_batch_2")
    check_out_data(finished)
    assert "up to date" in finished.dvc("status")  # DVC does not look into an object that is write-protected

    finished.configure(epochs=EPOCHS + 1)
    output = finished.dvc("repro", f"train@{BASELINE}", status=255)
    assert "data/cifar10/cifar-10-batches-py/data_batch_2 is damaged" in output and "exited with 2" in output
    (cure,) = re.findall(r"data_batch_2 is damaged .*?: fetch it anew by `(.*?)`", output)
    finished.run("/bin/sh", "-c", cure)
    assert f"goes on with {EPOCHS + 1}" in finished.dvc("repro", f"train@{BASELINE}")

    # The cache is cured too: every experiment in a folder of its own draws its data from there.
    check_out_data(finished)
    assert "nothing is left to train" in finished.train_without_dvc(BASELINE)


# Locks left behind. They are DVC's own; these tests are what the README says about them.


@pytest.mark.parametrize("content", [b"", b'{"write": {"/'], ids=["empty", "torn"])
def test_a_lock_file_that_a_crash_left_torn_stops_dvc_until_it_is_deleted(content: bytes, begun: Project) -> None:
    lock = begun.folder / ".dvc/tmp/rwlock"
    lock.write_bytes(content)
    output = begun.dvc("repro", f"train@{BASELINE}", status=255)
    assert f"Unable to read RWLock-file '{lock.relative_to(begun.folder)}'. JSON structure is corrupted" in output
    lock.unlink()
    assert skipped(BASELINE) in begun.dvc("repro", f"train@{BASELINE}")


def test_a_lock_whose_process_number_another_program_has_by_now_stops_dvc_until_it_is_deleted(begun: Project) -> None:
    lock = begun.folder / ".dvc/tmp/rwlock"
    model = str(begun.folder / f"models/{BASELINE}.pt")
    lock.write_text(json.dumps({"write": {model: {"pid": os.getpid(), "cmd": "dvc repro"}}, "read": {}}))
    output = begun.dvc("repro", f"train@{BASELINE}", status=255)
    assert "is busy, it is being blocked by" in output
    assert f"(PID {os.getpid()}): dvc repro" in output
    assert "you can manually remove" in output
    lock.unlink()
    assert skipped(BASELINE) in begun.dvc("repro", f"train@{BASELINE}")


def test_a_lock_of_a_process_that_is_gone_is_cleared_by_dvc_itself(begun: Project) -> None:
    gone = max(psutil.pids()) + 1_000_000
    lock = begun.folder / ".dvc/tmp/rwlock"
    model = str(begun.folder / f"models/{BASELINE}.pt")
    lock.write_text(json.dumps({"write": {model: {"pid": gone, "cmd": "dvc repro"}}, "read": {}}))
    output = begun.dvc("repro", f"train@{BASELINE}")
    assert "Auto removed it from the lock file" in output and skipped(BASELINE) in output
