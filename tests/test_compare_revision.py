"""`python -m tools.compare --with REVISION`: an ordering beside itself as it was trained there."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from runs import NETWORKS, arm_of, write_study
from scipy.stats import ttest_rel

from lib.metrics import RunMetrics
from tools import compare as tool
from tools.revision import at_revision

ORDERINGS = ["conv_relu_ic", "ic_conv_relu", "baseline"]
BASELINE = arm_of([0.50, 0.60, 0.70])
IC = arm_of([0.51, 0.62, 0.70], ordering="conv_relu_ic")
MORE_DROPOUT = [0.541, 0.642, 0.743]


def with_recipe(runs: Sequence[RunMetrics], **changed: float) -> list[RunMetrics]:
    return [
        dataclasses.replace(run, facts=dataclasses.replace(run.facts, recipe=run.facts.recipe | changed))
        for run in runs
    ]


CHANGED = with_recipe(arm_of(MORE_DROPOUT, ordering="conv_relu_ic"), dropout_p=0.1)


def git(folder: Path, *arguments: str) -> None:
    names = {f"GIT_{role}_{what}": "x" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, env=os.environ | names)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A project of DVC's with these runs and parameters committed, as the working directory."""

    def make(runs: Sequence[RunMetrics], **params: float) -> Path:
        git(tmp_path, "init", "-q")
        (tmp_path / ".dvc").mkdir()
        (tmp_path / ".dvc/config").write_text("")
        write_study(tmp_path, runs, ORDERINGS, **params)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "before")
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["compare", *arguments])
        tool.main()
        return capsys.readouterr().out

    return call


def rows_of(out: str) -> list[list[str]]:
    lines = [line for line in out.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_difference_is_what_is_here_minus_what_is_there_paired_by_seed(project, told):
    folder = project([*IC, *BASELINE])
    write_study(folder, [*CHANGED, *BASELINE], ORDERINGS, dropout_p=0.1)
    out = told("--with", "HEAD", "conv_relu_ic")
    (row,) = rows_of(out)
    assert row[:5] == ["ResNet", "110", "Conv2D-ReLU-IC", "the same at HEAD", "+0.0320"] and row[6] == "3/3"
    before = [run.test_accuracy for run in IC]
    assert row[7] == f"{min(4 * ttest_rel(MORE_DROPOUT, before).pvalue, 1):.4f}", "one ordering in four networks"
    here, there, changed = out.split("\n\n")[0].splitlines()[-3:]
    assert "dropout p = 0.1" in here and "dropout" not in there and there.startswith("at HEAD: CIFAR-10 ")
    assert changed == "changed: dropout_p 0.1 (at HEAD 0.05)"


def test_what_gave_the_same_results_is_left_out_and_not_corrected_for(project, told):
    folder = project([*IC, *BASELINE])
    write_study(folder, [*CHANGED, *BASELINE], ORDERINGS, dropout_p=0.1)
    out = told("--with", "HEAD")
    assert "compare: left out, with the same results here and at HEAD: resnet110-baseline\n" in out
    assert [row[2] for row in rows_of(out)] == ["Conv2D-ReLU-IC"]
    assert "correction for 11 comparisons" in out, "three orderings in four networks, less one"


def test_only_seeds_of_both_are_compared(project, told):
    folder = project(IC)
    more = with_recipe(arm_of([0.9, *MORE_DROPOUT[1:], 0.2], ordering="conv_relu_ic")[1:], dropout_p=0.1)
    write_study(folder, more, ORDERINGS, dropout_p=0.1, seeds=[1, 2, 3])
    (folder / "metrics/resnet110-conv_relu_ic-0.json").unlink()
    (row,) = rows_of(told("--with", "HEAD", "conv_relu_ic"))
    assert row[6] == "2/2"


def test_without_two_seeds_in_common_the_cure_is_told(project, told):
    folder = project(IC[:1])
    write_study(folder, CHANGED, ORDERINGS, dropout_p=0.1)
    assert told("--with", "HEAD", "conv_relu_ic").endswith(f"{tool.CHANCE}: train the same seeds here and at HEAD\n")


def test_where_no_parameter_has_changed_it_says_what_may_have(project, told):
    folder = project(IC)
    write_study(folder, arm_of(MORE_DROPOUT, ordering="conv_relu_ic"), ORDERINGS)
    assert "\nchanged: none of the parameters; code, PyTorch or device" in told("--with", "HEAD", "conv_relu_ic")


@pytest.mark.parametrize("revision", ["HEAD", "HEAD@{0}", "main", "mine"])
def test_a_revision_is_whatever_git_or_dvc_calls_so(project, told, revision):
    folder = project(IC)
    git(folder, "branch", "-M", "main")
    git(folder, "update-ref", f"refs/exps/ab/{'c' * 38}/mine", "HEAD")  # where DVC keeps an experiment
    write_study(folder, CHANGED, ORDERINGS, dropout_p=0.1)
    assert f"the same at {revision} " in told("--with", revision, "conv_relu_ic")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--with", "HEAD"], "--with HEAD: the results there are those of here: name another revision"),
        (["--with", "nope"], "nope: unknown Git revision 'nope': name a commit, a branch or an experiment"),
        (["--with", ""], ": a name is missing: name a commit"),
        (["--with", "HEAD", "baseline:conv_relu_ic"], "it is compared with itself at HEAD: name one ordering"),
        (["--with", "HEAD", "conv_relu"], "has no 'conv_relu', only conv_relu_ic, ic_conv_relu, baseline; did you"),
        ([], "nothing to compare: name pairs, as ic_conv_relu:baseline, or a revision, as --with HEAD"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(project, told, capsys, arguments, words):
    project([run for network in NETWORKS for each in ORDERINGS for run in arm_of([0.5], network, each)])
    with pytest.raises(SystemExit) as ended:
        told(*arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare: ") and words in line


def test_other_test_images_are_not_compared(project, told, capsys):
    folder = project(IC)
    write_study(folder, arm_of(MORE_DROPOUT, ordering="conv_relu_ic", dataset="synthetic"), ORDERINGS, dataset="auto")
    with pytest.raises(SystemExit) as ended:
        told("--with", "HEAD", "conv_relu_ic")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare: at HEAD runs were tested on 10,000 images of CIFAR-10, here on 10,000 images of ")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metrics/resnet110-conv_relu_ic-0.json", "is not a run's metrics ('run'): name another revision"),
        ("params.yaml", "preset: there is no None"),
    ],
)
def test_a_damaged_file_there_is_named_as_git_names_it(project, told, capsys, name, words):
    folder = project(IC)
    sound = (folder / name).read_text()
    (folder / name).write_text("{}")
    git(folder, "commit", "-qam", "damaged")
    (folder / name).write_text(sound)
    with pytest.raises(SystemExit) as ended:
        told("--with", "HEAD", "conv_relu_ic")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compare: HEAD:{name}") and words in line


def test_outside_a_project_of_dvcs_it_says_so(tmp_path, monkeypatch, told, capsys):
    write_study(tmp_path, IC, ORDERINGS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        told("--with", "HEAD")
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("compare: HEAD: ") and "repository" in line


def test_what_was_read_of_a_revision_is_gone_afterwards(project):
    project(IC)
    with at_revision("HEAD") as folder:
        assert (folder / "params.yaml").exists()
    assert not folder.exists()
