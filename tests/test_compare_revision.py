"""`python -m tools.compare --with REVISION`: an ordering beside itself as it was trained there."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from committing import git
from runs import NETWORKS, arm_of, lines_of, run_with, with_facts, with_p, write_study
from scipy.stats import ttest_rel

from lib.metrics import RunMetrics
from tools import compare as tool

ORDERINGS = ["conv_relu_ic", "ic_conv_relu", "baseline"]
BEFORE, AFTER = [0.51, 0.62, 0.70], [0.541, 0.642, 0.743]  # accuracies of the seeds 0, 1, 2
BASELINE = arm_of([0.50, 0.60, 0.70])
IC = arm_of(BEFORE, ordering="conv_relu_ic")


def trained(folder: Path, runs: Sequence[RunMetrics], **params: object) -> None:
    """As an experiment leaves it."""
    for path in folder.glob("metrics/*.json"):
        path.unlink()
    write_study(folder, runs, **({"orderings": ORDERINGS} | params))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A repository with these runs and parameters committed, as the working directory."""
    for name in [each for each in os.environ if each.startswith("GIT_")]:  # as within a hook
        monkeypatch.delenv(name)

    def make(runs: Sequence[RunMetrics], folder: Path = tmp_path, **params: object) -> Path:
        git(tmp_path, "init", "-q")
        folder.mkdir(exist_ok=True)
        trained(folder, runs, **params)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "before")
        monkeypatch.chdir(folder)
        return folder

    return make


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["compare", *arguments])
        tool.main()
        return capsys.readouterr().out

    return call


@pytest.fixture
def refused(told: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The line it ends with."""

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            told(*arguments)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def changed_in(out: str) -> str:
    (line,) = [line for line in out.splitlines() if line.startswith("changed: ")]
    return line


# ---- what it tells


def test_the_difference_is_what_is_here_minus_what_is_there_paired_by_seed(project, told):
    folder = project([*IC, *BASELINE])
    trained(folder, [*with_p(arm_of(AFTER, ordering="conv_relu_ic"), 0.1), *BASELINE], dropout_p=0.1)
    out = told("--with", "HEAD", "conv_relu_ic")
    (row,) = lines_of(out)
    assert row[:5] == ["ResNet", "110", "Conv2D-ReLU-IC", "the same at HEAD", "+0.0320"] and row[6] == "3/3"
    assert row[7] == f"{min(4 * ttest_rel(AFTER, BEFORE).pvalue, 1):.4f}", "one ordering in four networks"
    here, there, changed = out.split("\n\n")[0].splitlines()[-3:]
    assert "dropout p = 0.1" in here and "dropout" not in there and there.startswith("at HEAD: CIFAR-10 ")
    assert changed == "changed: dropout_p 0.1 (at HEAD 0.05)"


@pytest.mark.parametrize("trained_too", [True, False])
def test_what_the_change_does_not_concern_is_left_out_and_not_corrected_for(project, told, trained_too):
    """By its parameters: otherwise p would fall as such runs finish."""
    baselines = BASELINE if trained_too else []
    folder = project([*IC, *baselines])
    trained(folder, [*with_p(arm_of(AFTER, ordering="conv_relu_ic"), 0.1), *baselines], dropout_p=0.1)
    out = told("--with", "HEAD")
    assert "compare: left out, which the change does not concern: resnet110-baseline, resnet164-baseline, " in out
    assert [row[2] for row in lines_of(out)] == ["Conv2D-ReLU-IC"]
    assert "correction for 8 comparisons" in out, "two orderings with dropout in four networks"


def test_what_has_other_results_by_the_same_parameters_is_compared_too(project, told):
    """The code may have changed as well."""
    folder = project([*IC, *BASELINE])
    trained(folder, [*with_p(IC, 0.1), *arm_of([0.49, 0.61, 0.72])], dropout_p=0.1)
    out = told("--with", "HEAD")
    assert [row[2] for row in lines_of(out)] == ["Conv2D-ReLU-IC", "Baseline"] and "for 9 comparisons" in out


def test_where_the_code_has_changed_what_is_not_retrained_yet_counts_in_the_correction(project, told):
    """Otherwise p would rise with each arm that is retrained."""
    folder = project([*IC, *BASELINE])
    half = [*arm_of(AFTER, ordering="conv_relu_ic"), *BASELINE]
    trained(folder, half)
    out = told("--with", "HEAD")
    assert "left out, with the results that they have at HEAD: resnet110-baseline\n" in out
    assert changed_in(out) == "changed: no parameter; PyTorch, device or code may have"
    (row,) = lines_of(out)
    assert row[4] == "+0.0320" and "for 12 comparisons" in out
    trained(folder, [*half[:3], *arm_of([0.49, 0.61, 0.72])])
    assert lines_of(told("--with", "HEAD"))[0] == row


def test_a_seed_that_is_not_retrained_is_no_pair_without_a_difference(project, refused):
    folder = project(IC)
    trained(folder, [*arm_of(AFTER, ordering="conv_relu_ic")[:2], IC[2]])
    line = refused("--with", "HEAD", "conv_relu_ic")
    assert line.startswith("compare: resnet110-conv_relu_ic: seed 2 has the results that it has at HEAD")
    assert line.endswith("train what is stale with `dvc repro`")


def test_only_changes_that_decide_what_is_compared_are_told(project, told):
    """Another p is not the baseline's, another depth of another network neither."""
    folder = project(BASELINE)
    more = [run_with([0.4, 0.5, 0.6, 0.7], seed=seed) for seed in range(3)]
    more = [with_facts(run, train_images=40_000) for run in more]
    networks = {name: {"block": block, "blocks_per_stage": 18} for name, (block, _) in NETWORKS.items()}
    trained(folder, more, dropout_p=0.3, epochs=4, train_images=40_000, networks=networks)
    changes = "train_images 40000 (at HEAD 50000), epochs 4 (at HEAD 3), resnet164's blocks_per_stage 18 (at HEAD 27)"
    assert changed_in(told("--with", "HEAD", "baseline")).startswith(f"changed: {changes}, resnetb110's ")


def test_after_a_change_that_is_not_trained_yet_the_cure_is_to_train(project, told):
    folder = project([*IC, *BASELINE])
    trained(folder, [*IC, *BASELINE], dropout_p=0.1)
    out = told("--with", "HEAD")
    assert "left out, since they were trained otherwise" in out and tool.CHANCE in out
    trained(folder, [], dropout_p=0.1)
    assert tool.CHANCE in told("--with", "HEAD")


def test_only_seeds_of_both_are_compared_and_the_others_named(project, told):
    folder = project(IC)
    more = with_p(arm_of([0.9, *AFTER[1:], 0.2], ordering="conv_relu_ic")[1:], 0.1)
    trained(folder, more, dropout_p=0.1, seeds=[1, 2, 3])
    out = told("--with", "HEAD", "conv_relu_ic")
    assert lines_of(out)[0][6] == "2/2"
    assert "resnet110-conv_relu_ic: seeds 1, 2, 3 here, 0, 1, 2 at HEAD; those of both count" in out


def test_without_two_seeds_in_common_the_cure_is_told(project, told):
    folder = project(IC[:1])
    trained(folder, with_p(arm_of(AFTER, ordering="conv_relu_ic"), 0.1), dropout_p=0.1)
    last = told("--with", "HEAD", "conv_relu_ic").splitlines()[-1]
    assert last.startswith(f"{tool.CHANCE}: train what has changed by `dvc repro`")


# ---- which revision


@pytest.mark.parametrize("revision", ["HEAD", "HEAD@{0}", "main", ":/before", "mine"])
def test_a_revision_is_whatever_git_or_dvc_calls_so(project, told, revision):
    folder = project(IC)
    git(folder, "branch", "-M", "main")
    git(folder, "update-ref", f"refs/exps/ab/{'c' * 38}/mine", "HEAD")  # where DVC keeps an experiment
    trained(folder, with_p(IC, 0.1), dropout_p=0.1)
    assert changed_in(told("--with", revision, "conv_relu_ic")) == f"changed: dropout_p 0.1 (at {revision} 0.05)"


def test_two_experiments_of_a_name_are_told_apart_by_their_commits_alone(project, refused):
    folder = project(IC)
    git(folder, "update-ref", f"refs/exps/ab/{'c' * 38}/mine", "HEAD")
    git(folder, "commit", "-q", "--allow-empty", "-m", "other")
    git(folder, "update-ref", f"refs/exps/ab/{'d' * 38}/mine", "HEAD")
    assert "'mine' is more than one revision here: name a commit" in refused("--with", "mine")


@pytest.mark.parametrize("revision", ["nope", "", "-x", "--branches", "HEAD^{tree}", "HEAD:params.yaml", "a\nb", "*"])
def test_what_is_no_revision_is_refused_in_a_line(project, refused, revision):
    project(IC)
    assert f"{revision!r} is no revision here: name a commit" in refused(f"--with={revision}")


def test_in_a_folder_of_the_repository_it_is_that_folders_study(project, told, tmp_path):
    project(arm_of([0.1, 0.2, 0.3], ordering="conv_relu_ic"))
    folder = project(IC, tmp_path / "mine")
    (folder / "metrics/kept/2021").mkdir(parents=True)
    (folder / "metrics/kept/2021/other.json").write_text("{}")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "with a folder of the user's in metrics")
    trained(folder, with_p(arm_of(AFTER, ordering="conv_relu_ic"), 0.1), dropout_p=0.1)
    assert lines_of(told("--with", "HEAD", "conv_relu_ic"))[0][4] == "+0.0320"


@pytest.mark.parametrize("there", [True, False])
def test_without_a_repository_or_without_metrics_in_it_it_says_so(project, tmp_path, monkeypatch, refused, there):
    if there:
        project([])
    trained(tmp_path, IC)
    monkeypatch.chdir(tmp_path)
    words = "HEAD has no params.yaml and metrics/ in this folder" if there else "'HEAD' is no revision here"
    assert words in refused("--with", "HEAD")


# ---- what it does not compare


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--with", "HEAD"], "--with HEAD: parameters and results there are those of here: name a commit"),
        (["--with", "HEAD", "baseline:conv_relu_ic"], "it is compared with itself at HEAD: name one ordering"),
        (["--with", "HEAD", "conv_relu"], "conv_relu: it is not planned both here and at HEAD, only conv_relu_ic, "),
        ([], "nothing to compare: name pairs, as ic_conv_relu:baseline, or a revision, as --with HEAD"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(project, refused, arguments, words):
    project([run for network in NETWORKS for each in ORDERINGS for run in arm_of([0.5], network, each)])
    assert words in refused(*arguments)


def test_studies_without_an_arm_in_common_are_not_the_same(project, refused):
    folder = project(IC)
    trained(folder, arm_of([0.5] * 3, ordering="relu_ic_conv"), orderings=["relu_ic_conv"])
    assert "no network is planned in the same ordering here and at HEAD: name" in refused("--with", "HEAD")


def test_accuracies_on_other_images_are_not_compared(project, refused):
    folder = project(IC)
    trained(folder, arm_of(AFTER, ordering="conv_relu_ic", dataset="synthetic"), dataset="auto")
    line = refused("--with", "HEAD", "conv_relu_ic")
    assert "resnet110-conv_relu_ic was tested on 10,000 images of CIFAR-10 at HEAD, on 10,000 images of " in line


@pytest.mark.parametrize("measure", ["area", "change"])
def test_curves_of_unequal_length_are_not_compared(project, refused, measure):
    folder = project(BASELINE)
    trained(folder, [run_with([0.4, 0.5, 0.6, 0.7], seed=seed) for seed in range(3)], epochs=4)
    line = refused("--with", "HEAD", "baseline", "--measure", measure)
    assert f"--measure {measure}: of curves of 4 and 3 epochs it is not the same" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("metrics/resnet110-conv_relu_ic-0.json", " is not a run's metrics ('run'): name another revision"),
        ("params.yaml", " cannot be planned here (preset: there is no None, only replication): name another revision"),
    ],
)
def test_a_damaged_file_there_is_named_as_git_names_it(project, refused, name, words):
    folder = project(IC)
    sound = (folder / name).read_text()
    (folder / name).write_text("{}")
    git(folder, "commit", "-qam", "damaged")
    (folder / name).write_text(sound)
    assert refused("--with", "HEAD", "conv_relu_ic") == f"compare: HEAD:{name}{words}"
