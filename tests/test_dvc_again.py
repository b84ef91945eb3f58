"""The pipeline under DVC, end to end: what is done already, after an edit or a failure, on damaged data.

Every test has a project of its own, a copy of one in which stages are done already, and types what a user would type.
"""

import fcntl
import hashlib
import re
import shutil
from pathlib import Path

import pytest

from lib import cifar10
from tests.dvc_project import (
    BASELINE,
    EPOCHS,
    IC,
    LAST,
    RUNS,
    TRAINED,
    Project,
    cached,
    skipped,
    straight,
)

pytest_plugins = ("tests.dvc_fixtures",)
pytestmark = pytest.mark.slow


# What is there already.


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
    output = finished.dvc("repro", f"train@{IC}")
    assert output.count("nothing is left to train") == 1 and not TRAINED.search(output)
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
        assert f"missing, train them with `dvc repro`: {IC}" in report
        assert "2 of 3 runs" in (finished.folder / "plots/table1.md").read_text()
    output = finished.dvc("repro")
    assert skipped(BASELINE) in output and skipped(LAST) in output
    assert len(TRAINED.findall(output)) == 1
    assert "3 of 3 runs" in (finished.folder / "plots/table1.md").read_text()


def test_a_loss_that_is_no_number_stops_its_run_and_is_never_taken_for_a_result(finished: Project) -> None:
    finished.configure(learning_rate=1e20, optimizer="sgd")
    output = finished.dvc("repro", f"train@{IC}", status=255)
    assert output.count("exited with 2") == 1 and "lower learning_rate" in output
    assert not (finished.folder / f"models/{IC}.pt").exists()
    finished.run("git", "checkout", "params.yaml")
    output = finished.dvc("repro", f"train@{IC}")  # back to what was: nothing is to be trained
    assert not TRAINED.search(output)
    assert "up to date" in finished.dvc("status", f"train@{IC}")


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
    (cure,) = re.findall(r"data_batch_2 is damaged .*?: fetch it again with `(.*?)`", output)
    finished.run("/bin/sh", "-c", cure)
    assert f"goes on with {EPOCHS + 1}" in finished.dvc("repro", f"train@{BASELINE}")

    # The cache is cured too: every experiment in a folder of its own draws its data from there.
    check_out_data(finished)
    cifar10.verified_files(finished.folder / "data/cifar10")
