"""The evidence that is told: what the kept metrics come to, by the very commands that stand beside it."""

import csv
import re
import shlex
import statistics
import sys
from pathlib import Path

import pytest
import yaml

from lib import figure4, plan
from lib.metrics import read_metrics
from lib.report import claims_figure, drawing
from lib.report.results import collect, read_study
from stages import report
from tools import compare

ROOT = Path(__file__).parents[1]
PILOT = ROOT / "docs" / "pilot"
COMPARED = sorted(PILOT.glob("*/compared*.md"))
KEPT = sorted(path.parent for path in PILOT.glob("*/study.json"))


@pytest.fixture
def printed_by(monkeypatch, capsys):
    """What tools.compare prints in the repository, given its arguments."""

    def call(arguments: str) -> str:
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, "argv", ["compare", *shlex.split(arguments)])
        compare.main()
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: f"{path.parent.name} {path.stem}")
def test_the_command_named_prints_what_stands_below_it(path, printed_by):
    first, _, printed = path.read_text().partition("\n\n")
    (arguments,) = re.findall(r"`python -m tools\.compare (.*)`", first)
    assert printed_by(arguments) == printed


@pytest.mark.parametrize(
    ("told", "arguments"),
    [
        ("by 4.3, 7.0 and 4.9 points", "layers20 relu_ic_conv:baseline ic_conv_relu:baseline conv_relu_ic:baseline"),
        ("ends 9.7 points above the baseline", "layers20 baseline_ic:baseline"),
        (
            "5.4, 2.7 and 4.9 above the three orderings",
            "layers20 baseline_ic:relu_ic_conv baseline_ic:ic_conv_relu baseline_ic:conv_relu_ic",
        ),
        ("8.9 and 7.7 points lower", "layers20 ic_conv_relu:bn_conv_relu conv_relu_ic:conv_relu_bn"),
        ("1.1 and 1.7 points higher", "layers20 dropout_bn_conv_relu:ic_conv_relu conv_relu_dropout_bn:conv_relu_ic"),
        ("slower, by 2.6 points of area", "faster --measure area baseline:ic_conv_relu"),
        ("raises the baseline by 7.3 points", "deeper baseline_ic:baseline"),
        ("3.5 and 4.6 points ahead", "sooner --measure area conv_relu_ic:baseline conv_relu_ic:baseline_ic"),
        ("4.3 below Baseline-IC and 3.1 above the baseline", "deeper baseline_ic:conv_relu_ic conv_relu_ic:baseline"),
        ("5.9 ahead of the baseline at", "layers110 --measure area conv_relu_ic:baseline"),
    ],
)
def test_the_readmes_points_are_those_printed(told, arguments, printed_by):
    assert told in (ROOT / "README.md").read_text()
    differences = re.findall(r"\+(0\.\d{4})\W.*\[", printed_by(f"--study docs/pilot/{arguments}"))
    assert [f"{100 * float(each):.1f}" for each in differences] == re.findall(r"\d+\.\d", told)


REVERSED = (
    "ic_conv_relu:dropout_bn_conv_relu conv_relu_ic:conv_relu_dropout_bn "
    "dropout_bn_conv_relu:bn_conv_relu conv_relu_dropout_bn:conv_relu_bn"
)
OF_AREA = (
    "ic_conv_relu:baseline conv_relu_ic:baseline baseline_ic:baseline ic_conv_relu:baseline_ic conv_relu_ic:baseline_ic"
)


@pytest.mark.parametrize(
    ("told", "arguments", "rows"),
    [
        ("of area (p 0.04, weak)", f"faster --measure area {OF_AREA}", [0]),
        ("(p 0.06 each)", "deeper conv_relu_ic:baseline_ic baseline_ic:baseline conv_relu_ic:baseline", [0, 2]),
        ("(p 0.07 each)", "sooner --measure area conv_relu_ic:baseline conv_relu_ic:baseline_ic", [0, 1]),
        ("(p 0.14)", "layers110 --measure area conv_relu_ic:baseline", [0]),
        ("by itself p is 0.04", "layers110 --measure training_loss conv_relu_ic:baseline", [0]),
        ("(p 0.02, weak)", "sooner --measure training_loss conv_relu_ic:baseline conv_relu_ic:baseline_ic", [1]),
        ("p 0.02 and 0.01, weak", f"layers20 {REVERSED}", [0, 1]),
    ],
)
def test_the_readmes_ps_are_those_of_the_plans(told, arguments, rows, printed_by):
    assert told in (ROOT / "README.md").read_text()
    ps = re.findall(r"\| +<?(0\.\d{4}) \|$", printed_by(f"--study docs/pilot/{arguments}"), re.MULTILINE)
    found, given = [f"{float(ps[row]):.2f}" for row in rows], re.findall(r"0\.\d\d", told)
    assert found == (given * len(rows) if "each" in told else given)


def test_the_readmes_trend_with_depth_is_that_of_the_second_epochs_training_losses():
    changes = []
    for folder in ("faster", "sooner", "layers110"):
        losses = {path.stem.partition("-")[2]: read_metrics(path) for path in (PILOT / folder / "metrics").iterdir()}
        seeds = [int(name.rpartition("-")[2]) for name in losses if name.startswith("conv_relu_ic-")]
        of = {name: run.history[1].train_loss for name, run in losses.items()}
        changes.append(statistics.mean(of[f"conv_relu_ic-{seed}"] - of[f"baseline-{seed}"] for seed in seeds))
    up, up_less, down = changes
    told = f"{up:.3f} higher at 20 layers, {up_less:.3f} higher at 56, {-down:.3f} *lower* at 110"
    assert told in (ROOT / "README.md").read_text()


def test_the_readmes_steadiness_is_that_of_the_claims():
    late, deeper = (
        [row for row in csv.DictReader(path.read_text().splitlines()) if row["Measure"] == "Late epoch-to-epoch change"]
        for path in (PILOT / "control" / "claims.csv", PILOT / "deeper" / "claims.csv")
    )
    *three, control, baseline = (100 * float(each["Mean"]) / float(late[-1]["Mean"]) for each in late)
    assert f"Not shown at 56 layers (p {float(deeper[0]['Holm p']):.2f})" in (ROOT / "README.md").read_text()
    assert baseline == 100
    told = f"{min(three):.0f} to {max(three):.0f} % as much as the baseline's; not by dropout alone"
    assert f"{told} (Baseline-IC: {control:.0f} %)" in (ROOT / "README.md").read_text()


def test_what_the_readme_says_of_the_full_run_is_what_its_metrics_say():
    text = (ROOT / "README.md").read_text()
    curves = {
        path.stem.split("-")[1]: [record.test_accuracy for record in read_metrics(path).history]
        for path in (ROOT / "metrics").glob("resnet110-*-0.json")
    }
    assert set(curves) == {"relu_ic_conv", "ic_conv_relu", "conv_relu_ic", "baseline"}, "metrics/ is of another study"
    first, second, third = (
        100 * (curves[ordering][-1] - curves["baseline"][-1])
        for ordering in ("relu_ic_conv", "ic_conv_relu", "conv_relu_ic")
    )
    assert f"end {-first:.1f} and {-second:.1f} points below the baseline, one {third:.1f} above" in text
    assert f"our baseline ends at {100 * curves['baseline'][-1]:.1f} %" in text
    ranges = [100 * (max(curve[-10:]) - min(curve[-10:])) for curve in curves.values()]
    assert f"ranges over {min(ranges):.1f} to {max(ranges):.1f} points" in text
    for words, ordering in (
        ("Conv2D-ReLU-IC reaches 70, 75 and 80 % in {}, {} and {} epochs", "conv_relu_ic"),
        ("the baseline in {}, {} and {}", "baseline"),
    ):
        epochs = [
            next(i for i, value in enumerate(curves[ordering], 1) if value >= level) for level in (0.7, 0.75, 0.8)
        ]
        assert words.format(*epochs) in text


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_study_has_all_its_runs_and_no_other(folder, capsys):
    study = read_study(folder / "study.json")
    runs = collect(study, folder / "metrics")
    assert capsys.readouterr().out == ""
    assert [run.name for run in runs if run.finished] == study["runs"]


@pytest.fixture
def tables_of(monkeypatch):
    """What stages.report writes of these metrics, by file name, without the figures: a version's bytes are its own."""
    for module in (figure4, claims_figure):
        monkeypatch.setattr(module, "draw", lambda *_: None)
    monkeypatch.setattr(drawing, "rendered", lambda *_: b"")
    monkeypatch.setattr(report, "page", lambda *_: None)
    monkeypatch.setattr(report, "to_html", lambda _: "")
    return lambda study, metrics: {name: text.decode() for name, text in report.plots(study, metrics).items() if text}


def kept_in(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in [*folder.glob("table1.*"), *folder.glob("claims.[cm]*")]}


@pytest.mark.parametrize("folder", [each for each in KEPT if (each / "table1.md").exists()], ids=lambda each: each.name)
def test_a_kept_studys_tables_are_those_of_its_metrics(folder, tables_of):
    study = read_study(folder / "study.json")
    tables = tables_of(study, collect(study, folder / "metrics"))
    assert tables == kept_in(folder)


def test_the_tables_in_plots_and_in_the_readme_are_those_of_metrics(tables_of, tmp_path):
    """Which are of one of the study's networks, in bfloat16."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    own = params | {"precision": "bfloat16", "networks": {"resnet110": params["networks"]["resnet110"]}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(own))
    study = plan.read_study(tmp_path / "params.yaml").summary()
    tables = tables_of(study, collect(study, ROOT / "metrics"))
    assert tables == kept_in(ROOT / "plots")
    caption, rows, *_ = tables["table1.md"].split("\n\n")
    assert f"\n{caption}\n\n{rows}\n\n" in (ROOT / "README.md").read_text()


def rows_of(path: Path) -> set[str]:
    """The rows of a page's tables that hold an interval, without padding."""
    lines = [re.sub(" +", " ", line) for line in path.read_text().splitlines() if line.startswith("|")]
    return {line for line in lines if re.search(r"\[[+-]0\.\d+, [+-]0\.\d+\]", line)}


def test_every_comparison_that_is_shown_is_one_that_was_printed():
    printed = set().union(*map(rows_of, [*COMPARED, *PILOT.glob("*/table1.md")]))
    assert set() < rows_of(ROOT / "docs" / "results.md") <= printed
