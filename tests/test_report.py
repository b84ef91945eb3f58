import csv
import dataclasses
import re
import sys
import xml.etree.ElementTree as ET

import pytest

from lib import figure4, paper, table1
from lib.files import canonical_json
from lib.metrics import EpochRecord, RunFacts, RunMetrics, write_metrics
from stages import report

NETWORKS = {
    "resnet110": ("basic", 110),
    "resnet164": ("basic", 164),
    "resnetb110": ("bottleneck", 110),
    "resnetb164": ("bottleneck", 164),
}
ORDERINGS = ["relu_ic_conv", "ic_conv_relu", "conv_relu_ic", "baseline"]


def run_of(network, ordering, seed=0, epochs=3, accuracy=0.5, dataset="cifar10"):
    block, depth = NETWORKS[network]
    facts = RunFacts(network, block, depth, ordering, seed, dataset, epochs, 1000, "2.14.1", "cpu")
    history = [EpochRecord(e, 0.001, 1.0, 0.4, 1.1, accuracy * e / epochs) for e in range(1, epochs + 1)]
    return RunMetrics(facts, tuple(history))


def all_runs(**facts):
    return [
        run_of(network, ordering, accuracy=0.5 + 0.02 * index, **facts)
        for index, (network, ordering) in enumerate((n, o) for n in NETWORKS for o in ORDERINGS)
    ]


@pytest.fixture
def study(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    runs = all_runs()
    (tmp_path / "plan").mkdir()
    content = {
        "preset": "replication",
        "dataset": "cifar10",
        "epochs": 3,
        "train_images": 50000,
        "test_images": 10000,
        "report": {"figure_dpi": 60, "accuracy_from": 0.1},
        "runs": [run.name for run in runs],
    }
    (tmp_path / "plan/study.json").write_bytes(canonical_json(content))
    for run in runs:
        write_metrics(tmp_path / f"metrics/{run.name}.json", run.facts, run.history)
    return tmp_path


def test_figure_has_the_papers_four_panels_with_four_curves_each():
    figure = figure4.draw(all_runs(), "title", 0.1)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == [
        "(a) ResNet 110 on CIFAR-10",
        "(b) ResNet 164 on CIFAR-10",
        "(c) ResNet-B 110 on CIFAR-10",
        "(d) ResNet-B 164 on CIFAR-10",
    ]
    for panel in figure.axes:
        curves = [line for line in panel.get_lines() if len(line.get_xdata()) == 3]
        assert len(curves) == 4
        assert len({line.get_color() for line in curves}) == 4
        assert len({str(line._dash_pattern) for line in curves}) == 4, "told apart without colour too"


def test_curves_are_the_histories():
    runs = all_runs()
    panel = figure4.draw(runs, "title", 0.1).axes[0]
    curves = [line for line in panel.get_lines() if len(line.get_xdata()) == 3]
    assert [list(line.get_ydata()) for line in curves] == [
        pytest.approx([record.test_accuracy for record in run.history]) for run in runs[:4]
    ]


def test_three_or_five_networks_get_as_many_panels():
    runs = [run for run in all_runs() if run.facts.network != "resnetb164"]
    titles = [panel.get_title() for panel in figure4.draw(runs, "title", 0.1).axes if panel.axison]
    assert len(titles) == 3


def test_several_seeds_become_one_curve_with_a_band():
    runs = [run_of("resnet110", "baseline", seed, accuracy=0.4 + 0.1 * seed) for seed in (0, 1)]
    panel = figure4.draw(runs, "title", 0.1).axes[0]
    (curve,) = [line for line in panel.get_lines() if len(line.get_xdata()) == 3]
    assert curve.get_ydata()[-1] == pytest.approx(0.45)
    assert len(panel.collections) == 1


def test_table_has_the_papers_rows_and_our_numbers_beside_its():
    table = table1.rows(all_runs())
    assert [(row.model, row.depth, row.layers) for row in table[:4]] == [
        ("ResNet", 110, "2x{ReLU-IC-Conv2D}"),
        ("ResNet", 110, "2x{IC-Conv2D-ReLU}"),
        ("ResNet", 110, "2x{Conv2D-ReLU-IC}"),
        ("ResNet", 110, "Baseline"),
    ]
    assert table[-2].layers == "3x{Conv2D-ReLU-IC}" and table[-2].model == "ResNet-B"
    assert len(table) == 16
    assert [row.paper for row in table[:4]] == [0.8226, 0.8429, 0.8449, 0.6454]
    assert table[3].to_paper == pytest.approx(0.56 - 0.6454)


def test_paper_has_sixteen_numbers_as_printed():
    numbers = [value for row in paper.TABLE_1.values() for value in row.values()]
    assert len(numbers) == 16
    assert sum(numbers) == pytest.approx(13.1077)


def test_the_paper_is_no_yardstick_for_other_data_or_other_depths():
    assert table1.rows([run_of("resnet110", "baseline", dataset="synthetic")])[0].paper is None
    shallow = run_of("resnet110", "baseline")
    shallow = dataclasses.replace(shallow, facts=dataclasses.replace(shallow.facts, depth=8))
    assert table1.rows([shallow])[0].paper is None


def test_an_unfinished_run_has_no_accuracy_at_the_end_of_training():
    run = run_of("resnet110", "baseline")
    assert table1.rows([dataclasses.replace(run, history=run.history[:2])])[0].accuracy.mean is None


def test_seeds_are_averaged():
    runs = [run_of("resnet110", "baseline", seed, accuracy=0.4 + 0.1 * seed) for seed in (0, 1)]
    assert table1.rows(runs)[0].accuracy.mean == pytest.approx(0.45)


def test_report_writes_eight_files_and_prints_the_table(study, capsys):
    report.main()
    assert sorted(path.name for path in (study / "plots").iterdir()) == [
        *("claims.csv", "claims.md", "claims.png", "claims.svg"),
        *("figure4.png", "figure4.svg", "table1.csv", "table1.md"),
    ]
    rows = list(csv.DictReader((study / "plots/table1.csv").read_text().splitlines()))
    assert len(rows) == 16
    assert rows[3] == {
        "Model": "ResNet",
        "Depth": "110",
        "Layers in Residual Unit": "Baseline",
        "CIFAR10": "0.560000",
        "Standard deviation": "",
        "n": "1",
        "Difference to baseline": "",
        "Interval low": "",
        "Interval high": "",
        "Pairs": "",
        "Wins": "",
        "p": "",
        "Holm p": "",
        "Paper": "0.6454",
        "Difference to paper": "-0.085400",
    }
    assert (study / "plots/table1.md").read_text() in capsys.readouterr().out
    for figure in ("figure4", "claims"):
        ET.parse(study / f"plots/{figure}.svg")


def test_report_is_byte_identical_when_rerun(study):
    report.main()
    first = {path.name: path.read_bytes() for path in (study / "plots").iterdir()}
    report.main()
    assert {path.name: path.read_bytes() for path in (study / "plots").iterdir()} == first


def test_synthetic_data_is_named_in_figure_and_table(study):
    for run in all_runs(dataset="synthetic"):
        write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    report.main()
    assert "SYNTHETIC" in (study / "plots/table1.md").read_text().splitlines()[0]
    assert "CIFAR" not in (study / "plots/table1.md").read_text()
    figure = figure4.draw(all_runs(dataset="synthetic"), "title", 0.1)
    assert figure.axes[0].get_title() == "(a) ResNet 110 on SYNTHETIC"


def test_missing_and_foreign_runs_are_named_and_left_out(study, capsys):
    (study / "metrics/resnet110-baseline-0.json").unlink()
    other = run_of("resnet110", "baseline", seed=7)
    write_metrics(study / f"metrics/{other.name}.json", other.facts, other.history)
    report.main()
    out = capsys.readouterr().out
    assert re.search("missing.*: resnet110-baseline-0$", out, flags=re.MULTILINE)
    assert re.search("left out.*: resnet110-baseline-7$", out, flags=re.MULTILINE)
    assert "15 of 16 runs" in (study / "plots/table1.md").read_text()


def refused(capsys):
    with pytest.raises(SystemExit) as ending:
        report.main()
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_no_runs_at_all_is_refused(study, capsys):
    for path in (study / "metrics").iterdir():
        path.unlink()
    assert "metrics holds no run" in refused(capsys)
    assert not (study / "plots").exists()


@pytest.mark.parametrize(
    ("facts", "told"), [({"dataset": "synthetic"}, "synthetic"), ({"epochs": 4}, "4 epochs")], ids=["data", "epochs"]
)
def test_a_run_under_other_circumstances_is_refused_and_named(study, capsys, facts, told):
    run = run_of("resnetb164", "baseline", **facts)
    write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    line = refused(capsys)
    assert "resnetb164-baseline-0.json" in line and told in line


def test_a_damaged_file_is_refused_and_named(study, capsys):
    (study / "metrics/resnet164-baseline-0.json").write_text('{"history": [')
    assert "resnet164-baseline-0.json" in refused(capsys)
