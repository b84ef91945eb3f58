"""`python -m tools.compare`: any ordering beside any other, by Table 1's own test."""

import dataclasses
import shutil
import sys
from pathlib import Path

import pytest
from runs import ORDERINGS, arm_of, lines_of, run_with, with_facts, with_p, write_study
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from lib import table1
from lib.metrics import RunMetrics
from lib.report import cells, claims
from tools import compare as tool

ORDERINGS_HERE = [*ORDERINGS, "bn_conv_relu"]
IC = arm_of([0.541, 0.642, 0.743], ordering="ic_conv_relu")
BN = arm_of([0.52, 0.61, 0.70], ordering="bn_conv_relu")
BASELINE = arm_of([0.50, 0.60, 0.70])


@pytest.fixture
def compared(tmp_path, monkeypatch, capsys):
    """What the tool prints in a project with these runs: of a study of four networks, five orderings, three seeds."""

    def call(runs: list[RunMetrics], *arguments: str, **params: float) -> str:
        write_study(tmp_path, runs, ORDERINGS_HERE, **params)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["compare", *arguments])
        tool.main()
        return capsys.readouterr().out

    return call


def test_beside_the_baseline_it_is_table_1s_comparison(compared):
    (row,) = [row for row in table1.rows([*BN, *BASELINE], planned=4) if row.to_baseline]
    (line,) = lines_of(compared([*BN, *BASELINE], "bn_conv_relu:baseline"))
    assert line == ["ResNet", "110", "BN-Conv2D-ReLU", "Baseline", *cells.comparison(row.to_baseline, 4)]


@pytest.mark.parametrize(("name", "measure"), [("area", claims.AREA), ("change", claims.LATE_CHANGE)])
def test_by_a_measure_of_the_claims_the_difference_is_that_of_the_claims(compared, name, measure):
    """The correction is not: a claim's is for all its measures."""
    histories = (
        [[0.3, 0.5, 0.6], [0.31, 0.45, 0.61], [0.2, 0.5, 0.55]],
        [[0.2, 0.5, 0.65], [0.3, 0.4, 0.7], [0.1, 0.5, 0.6]],
    )
    runs = [
        run_with(each, ordering=ordering, seed=seed)
        for ordering, curves in zip(("ic_conv_relu", "baseline"), histories, strict=True)
        for seed, each in enumerate(curves)
    ]
    (row,) = [row.to_baseline for row in claims.rows(runs) if row.measure is measure and row.to_baseline]
    out = compared(runs, "ic_conv_relu:baseline", "--measure", name)
    (line,) = lines_of(out)
    assert line[4:7] == cells.comparison(row, 4)[:3] and line[6] == "3/3"
    assert float(line[7]) == pytest.approx(4 * row.p, abs=5e-5)
    assert tool.CRITERIA[name].words in out and "last epoch" not in out


def test_by_training_loss_the_lower_one_wins_after_a_single_epoch_too(compared):
    losses = {"ic_conv_relu": [1.1, 1.3, 1.2], "baseline": [1.5, 1.4, 1.6]}
    runs = [
        dataclasses.replace(run, history=(dataclasses.replace(run.history[0], train_loss=loss),))
        for ordering, those in losses.items()
        for run, loss in zip(arm_of([0.5] * 3, ordering=ordering, epochs=1), those, strict=True)
    ]
    out = compared(runs, "ic_conv_relu:baseline", "--measure", "training_loss", epochs=1)
    (line,) = lines_of(out)
    assert [*line[2:5], line[6]] == ["IC-Conv2D-ReLU", "Baseline", "-0.3000", "3/3"]
    assert "last epoch's training loss (less is better)" in out


@pytest.mark.parametrize("measure", ["area", "change"])
def test_a_single_epoch_has_no_curve_to_compare(compared, capsys, measure):
    with pytest.raises(SystemExit) as ending:
        compared([*IC, *BASELINE], "ic_conv_relu:baseline", "--measure", measure, epochs=1)
    assert ending.value.code == 2
    assert f"--measure {measure}: one epoch draws no curve" in capsys.readouterr().err


def test_the_other_way_round_the_difference_has_the_other_sign(compared):
    ((one,), (other,)) = (
        lines_of(compared([*IC, *BN], pair)) for pair in ("ic_conv_relu:bn_conv_relu", "bn_conv_relu:ic_conv_relu")
    )
    assert float(one[4]) == -float(other[4]) == pytest.approx(0.032, abs=5e-5)
    assert one[7] == other[7]


def test_the_correction_is_for_all_that_is_asked_for_in_every_network_of_the_study(compared):
    """Two pairs in four networks, of which one is trained."""
    out = compared([*IC, *BN, *BASELINE], "ic_conv_relu:bn_conv_relu", "bn_conv_relu:baseline")
    assert "correction for 8 comparisons" in out
    lines = lines_of(out)
    assert [line[2:4] for line in lines] == [["IC-Conv2D-ReLU", "BN-Conv2D-ReLU"], ["BN-Conv2D-ReLU", "Baseline"]]
    p = [
        ttest_rel([run.test_accuracy for run in one], [run.test_accuracy for run in other]).pvalue
        for one, other in ((IC, BN), (BN, BASELINE))
    ]
    holm = multipletests([*p, *[1.0] * 6], method="holm")[1][:2]
    assert [line[7] for line in lines] == [f"{each:.4f}" for each in holm]
    assert min(holm) < 1, "a correction can be told from none and from another"


@pytest.mark.parametrize("again", ["ic_conv_relu:baseline", "baseline:ic_conv_relu"])
def test_a_question_that_is_asked_twice_counts_once(compared, again):
    once = compared([*IC, *BASELINE], "ic_conv_relu:baseline")
    assert "for 4 comparisons" in once
    assert compared([*IC, *BASELINE], "ic_conv_relu:baseline", again) == once


def test_a_supported_difference_is_bold(compared):
    sure = arm_of([0.601, 0.702, 0.803], ordering="ic_conv_relu")
    (line,) = lines_of(compared([*sure, *BASELINE], "ic_conv_relu:baseline"))
    assert line[4] == "**+0.1020**" and line[6] == "3/3"


def test_what_counts_as_supported_is_the_readers_to_fix(compared):
    """For a plan whose measures share the chance of a false statement."""
    out = compared([*IC, *BASELINE], "ic_conv_relu:baseline")
    (line,) = lines_of(out)
    p = float(line[7])
    assert line[4] == "**+0.0420**" and p < 0.05 and "p < 0.05," in out
    for level, told in ((p - 0.0001, "+0.0420"), (p + 0.0001, "**+0.0420**")):
        out = compared([*IC, *BASELINE], "ic_conv_relu:baseline", "--level", str(level))
        ((*_, difference, _, _, _),) = lines_of(out)
        assert difference == told and f"p < {level:g}," in out


@pytest.mark.parametrize("level", ["0", "1", "5", "-0.05", "nan"])
def test_a_level_that_is_no_probability_is_refused_in_a_line(compared, capsys, level):
    with pytest.raises(SystemExit) as ending:
        compared([*IC, *BASELINE], "ic_conv_relu:baseline", "--level", level)
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"compare: --level {float(level):g}: give a probability between 0 and 1, as 0.025"


@pytest.mark.parametrize("runs", [[], IC, [IC[0], BASELINE[0]], [IC[0], BASELINE[1]]])
@pytest.mark.parametrize(("seeds", "cure"), [([0, 1, 2], "`dvc repro`"), ([0], "'seeds=[0,1]'`")])
def test_without_two_seeds_in_common_there_is_nothing_to_say_but_the_cure(compared, runs, seeds, cure):
    told = compared(runs, "ic_conv_relu:baseline", seeds=seeds).splitlines()[-1]
    assert told.startswith(tool.CHANCE) and told.endswith(cure)


def test_arms_without_a_run_are_named(compared):
    out = compared([*IC, *BASELINE], "ic_conv_relu:baseline", "ic_conv_relu:bn_conv_relu")
    first, *_ = out.splitlines()
    assert first.startswith("compare: without a finished run: resnet110-bn_conv_relu, resnet164-ic_conv_relu, ")
    assert len(lines_of(out)) == 1 and "for 8 comparisons" in out


def test_it_is_told_what_was_run(compared):
    """Of the two orderings alone: another's seeds and runs are not theirs."""
    line = "CIFAR-10 (50,000 training images), preset replication, 3 epochs, n = 2 seeds, 4 of 24 runs, "
    assert line in compared([*IC[:2], *BASELINE[:2], *BN], "ic_conv_relu:baseline")


def test_the_recipe_that_is_told_is_that_of_the_orderings_compared(compared):
    """Where neither has dropout its p is not theirs, whatever params.yaml says of others."""
    runs = [*with_p(IC, 0.1), *BN, *BASELINE]
    assert "dropout p = 0.1" in compared(runs, "ic_conv_relu:baseline", dropout_p=0.1)
    assert "dropout" not in compared(runs, "bn_conv_relu:baseline", dropout_p=0.1)


def test_a_pair_without_seeds_in_common_is_a_row_of_dashes_and_counts(compared):
    out = compared([*IC, *BASELINE, BN[0]], "ic_conv_relu:baseline", "ic_conv_relu:bn_conv_relu")
    one, other = lines_of(out)
    assert one[6] == "3/3" and other[4:] == ["+0.0210", "–", "1/1", "–"]
    assert "for 8 comparisons" in out


def test_every_network_has_its_own_rows(compared):
    other = [*arm_of([0.6, 0.7], "resnet164", "ic_conv_relu"), *arm_of([0.5, 0.5], "resnet164")]
    lines = lines_of(compared([*IC, *BASELINE, *other], "ic_conv_relu:baseline"))
    assert [line[:2] for line in lines] == [["ResNet", "110"], ["", "164"]]


def test_runs_that_were_trained_otherwise_are_left_out(compared):
    strange = arm_of([0.9, 0.9, 0.9], ordering="bn_conv_relu", dataset="synthetic")
    out = compared([*IC, *BASELINE, *strange], "ic_conv_relu:bn_conv_relu", "ic_conv_relu:baseline")
    assert out.startswith("compare: left out, since they were trained otherwise") and len(lines_of(out)) == 1


def test_runs_of_another_network_of_that_name_are_left_out(compared):
    """Other metrics than a plan's lie in metrics/ where params.yaml was edited since."""
    deeper = [with_facts(run, depth=56) for run in IC]
    out = compared([*deeper, *BASELINE], "ic_conv_relu:baseline")
    assert out.startswith("compare: left out, since they were trained otherwise") and tool.CHANCE in out


def test_without_parameters_the_cure_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare", "ic_conv_relu:baseline"])
    with pytest.raises(SystemExit) as ending:
        tool.main()
    assert ending.value.code == 2
    assert "params.yaml is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "study.json is not there: name a folder"),
        ({"study.json": "{}"}, "metrics is not there: name a folder"),
        ({"study.json": "{}", "metrics/README.md": ""}, "study.json is not what plan writes: restore the file"),
        ({"study.json": "{", "metrics/README.md": ""}, "study.json cannot be read as JSON ("),
    ],
)
def test_a_kept_study_that_is_not_whole_is_refused_in_a_line(tmp_path, monkeypatch, capsys, files, words):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(sys, "argv", ["compare", "ic_conv_relu:baseline", "--study", str(tmp_path)])
    with pytest.raises(SystemExit) as ending:
        tool.main()
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/{words}" in line


def kept_study(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of one of the repository's, which a comparison is asked of."""
    kept = shutil.copytree(Path(__file__).parents[1] / "docs/pilot/faster", folder / "kept")
    monkeypatch.setattr(sys, "argv", ["compare", "ic_conv_relu:baseline", "--study", str(kept)])
    return kept


def test_a_damaged_file_of_a_kept_study_is_to_be_restored(tmp_path, monkeypatch, capsys):
    path = kept_study(tmp_path, monkeypatch) / "metrics/resnet20-baseline-13.json"
    path.write_text("{}")
    with pytest.raises(SystemExit) as ending:
        tool.main()
    assert ending.value.code == 2
    assert f"{path} is not a run's metrics ('run'): restore the file" in capsys.readouterr().err


@pytest.mark.parametrize("left", [5, 1])
def test_of_a_kept_study_nothing_can_be_trained(tmp_path, monkeypatch, capsys, left):
    kept = kept_study(tmp_path, monkeypatch)
    for path in sorted(kept.glob("metrics/resnet20-baseline-1*.json"))[left:]:
        path.unlink()
    tool.main()
    out = capsys.readouterr().out
    assert "resnet20-baseline lacks 1" in out and "dvc" not in out
    assert out.endswith(f"{tool.CHANCE}\n") == (left == 1)


def test_to_a_kept_study_nothing_can_be_added(monkeypatch, capsys):
    kept = Path(__file__).parents[1] / "docs/pilot/faster"
    monkeypatch.setattr(sys, "argv", ["compare", "conv_relu:baseline", "--study", str(kept)])
    with pytest.raises(SystemExit):
        tool.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("only ic_conv_relu, conv_relu_ic, baseline_ic, baseline; did you mean ic_conv_relu?")


def test_seeds_that_one_lacks_are_named_and_left_out(compared):
    out = compared([*IC[:2], *BASELINE], "ic_conv_relu:baseline")
    assert "resnet110-ic_conv_relu lacks 2" in out
    assert lines_of(out)[0][6] == "2/2"


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("ic_conv_relu", "with a colon between"),
        ("baseline:baseline", "two orderings"),
        ("ic_conv_rely:baseline", "the study has no 'ic_conv_rely', only relu_ic_conv, "),
        ("ic_conv_rely:baseline", "; did you mean ic_conv_relu?"),
        ("conv_relu:baseline", ": add it to orderings in params.yaml"),
        ("baseline:ic_conv_relu:bn_conv_relu", "with a colon between"),
        ("baseline:", "no '', only relu_ic_conv, "),
    ],
)
def test_what_is_no_pair_of_the_study_is_refused_in_a_line(compared, capsys, pair, words):
    with pytest.raises(SystemExit) as ending:
        compared([], pair)
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"compare: {pair}: ") and words in line
