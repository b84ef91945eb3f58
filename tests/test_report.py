import csv
import dataclasses
import json
import re
import sys
import xml.etree.ElementTree as ET

import pytest
from runs import NETWORKS_PLANNED, all_runs, run_of, run_with, with_facts

from lib import figure4
from lib.files import canonical_json
from lib.metrics import write_metrics
from lib.recipe import OF_THE_STUDY
from lib.report import claims_figure, drawing
from stages import report


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
        "recipe": OF_THE_STUDY,
        "networks": NETWORKS_PLANNED,
        "runs": [run.name for run in runs],
    }
    (tmp_path / "plan/study.json").write_bytes(canonical_json(content))
    for run in runs:
        write_metrics(tmp_path / f"metrics/{run.name}.json", run.facts, run.history)
    return tmp_path


@pytest.fixture
def undrawn(monkeypatch):
    """Without the figures, which take seconds and are tested elsewhere."""
    for module in (figure4, claims_figure):
        monkeypatch.setattr(module, "draw", lambda *_: None)
    monkeypatch.setattr(drawing, "rendered", lambda *_: b"a figure")


def test_report_writes_nine_files_and_prints_the_table(study, capsys):
    report.main()
    assert sorted(path.name for path in (study / "plots").iterdir()) == [
        *("claims.csv", "claims.md", "claims.png", "claims.svg"),
        *("figure4.png", "figure4.svg", "report.html", "table1.csv", "table1.md"),
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


def test_synthetic_data_is_named_in_every_table(study, undrawn):
    content = json.loads((study / "plan/study.json").read_bytes()) | {"dataset": "auto"}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    for run in all_runs(dataset="synthetic"):
        write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    report.main()
    for name in ("table1.md", "claims.md"):
        text = (study / "plots" / name).read_text()
        assert "SYNTHETIC" in text.splitlines()[0] and "CIFAR" not in text


def test_every_table_tells_what_is_unlike_the_study(study, undrawn):
    unlike = {"precision": "bfloat16", "dropout_p": 0.1}
    content = json.loads((study / "plan/study.json").read_bytes())
    content["recipe"] |= unlike
    (study / "plan/study.json").write_bytes(canonical_json(content))
    for run in all_runs():
        recipe = run.facts.recipe | {key: value for key, value in unlike.items() if key in run.facts.recipe}
        facts = dataclasses.replace(run.facts, recipe=recipe)
        write_metrics(study / f"metrics/{run.name}.json", facts, run.history)
    report.main()
    for name in ("table1.md", "claims.md"):
        told = (study / "plots" / name).read_text().splitlines()[0]
        assert "3 epochs, dropout p = 0.1, bfloat16, n = 1 seed" in told


@pytest.mark.parametrize("recipe", [None, [], {}, OF_THE_STUDY | {"weight_decay": 10**400}])
def test_a_study_without_a_sound_recipe_is_refused_with_the_cure(study, capsys, recipe):
    content = json.loads((study / "plan/study.json").read_bytes()) | {"recipe": recipe}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    with pytest.raises(SystemExit, match="2"):
        report.main()
    assert capsys.readouterr().err == (
        "report: plan/study.json is not what plan writes: `python -m stages.plan` writes it\n"
    )


def test_missing_and_foreign_runs_are_named_and_left_out(study, undrawn, capsys):
    (study / "metrics/resnet110-baseline-0.json").unlink()
    other = run_of("resnet110", "baseline", seed=7)
    write_metrics(study / f"metrics/{other.name}.json", other.facts, other.history)
    report.main()
    out = capsys.readouterr().out
    assert re.search("missing.*: resnet110-baseline-0$", out, flags=re.MULTILINE)
    assert re.search("left out.*: resnet110-baseline-7$", out, flags=re.MULTILINE)
    assert "15 of 16 runs" in (study / "plots/table1.md").read_text()


def test_the_correction_is_for_the_whole_study_while_runs_are_missing(study, undrawn):
    runs = [run for seed in (0, 1) for run in all_runs(seed=seed)]
    content = json.loads((study / "plan/study.json").read_bytes()) | {"runs": [run.name for run in runs]}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    for path in (study / "metrics").iterdir():
        path.unlink()
    for run in runs[:4] + runs[16:20]:  # one network's
        write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    report.main()
    table = (study / "plots/table1.md").read_text()
    assert "Holm-corrected for the study's 12 comparisons" in table and "n = 2 seeds, 8 of 32 runs" in table


def test_of_many_missing_runs_some_are_named(study, undrawn, capsys):
    for path in sorted((study / "metrics").iterdir())[1:]:
        path.unlink()
    report.main()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "missing" in line]
    assert "15 of 16 runs are missing" in line and line.endswith(" and 7 more") and len(line) < 300


def test_a_part_of_the_test_set_is_told(study, undrawn):
    content = json.loads((study / "plan/study.json").read_bytes()) | {"test_images": 2000}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    report_runs = [with_facts(run, test_images=2000) for run in all_runs()]
    for run in report_runs:
        write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    report.main()
    assert "CIFAR-10 (50,000 training images, 2,000 test images), preset" in (study / "plots/table1.md").read_text()


def test_arms_of_unlike_numbers_of_seeds_are_told_by_the_fewest_and_the_most(study, undrawn):
    runs = [*all_runs(), run_of("resnet110", "conv_relu_ic", seed=1)]
    content = json.loads((study / "plan/study.json").read_bytes()) | {"runs": [run.name for run in runs]}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    write_metrics(study / f"metrics/{runs[-1].name}.json", runs[-1].facts, runs[-1].history)
    report.main()
    assert ", n = 1 to 2 seeds, 17 of 17 runs," in (study / "plots/table1.md").read_text()


def test_a_run_under_way_counts_neither_as_a_seed_nor_as_done(study, undrawn):
    run = run_with([0.1, 0.2], "resnet164", "baseline", seed=0, epochs=3)
    write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    report.main()
    assert "n = 1 seed, 15 of 16 runs, 1 under way" in (study / "plots/table1.md").read_text()


def test_a_device_of_any_name_is_drawn_as_it_is(study, capsys):
    run = run_of("resnet164", "baseline")
    facts = dataclasses.replace(run.facts, device="cpu $\\frac{$ x")
    write_metrics(study / f"metrics/{run.name}.json", facts, run.history)
    report.main()
    assert facts.device in capsys.readouterr().out


def test_unequal_seeds_are_told_in_one_line(study, undrawn, capsys):
    runs = [run for seed in (0, 1, 2) for run in all_runs(seed=seed)]
    content = json.loads((study / "plan/study.json").read_bytes()) | {"runs": [run.name for run in runs]}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    unfinished = run_with([0.1, 0.2], "resnet164", "baseline", seed=2, epochs=3)
    for run in [*runs, unfinished]:
        if run.name != "resnet110-conv_relu_ic-1":
            write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    report.main()
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "unequal seeds" in line]
    assert "resnet110-conv_relu_ic lacks 1; resnet164-baseline lacks 2;" in line and "`dvc repro`" in line


def test_equal_seeds_need_no_word(study, undrawn, capsys):
    report.main()
    assert "unequal" not in capsys.readouterr().out


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
    ("facts", "told"),
    [
        ({"dataset": "synthetic"}, "dataset synthetic"),
        ({"epochs": 4}, "epochs 4"),
        ({"depth": 110}, "depth 110, the study's runs have 164"),
        ({"block": "basic"}, "block basic, the study's runs have bottleneck"),
        ({"train_images": 600}, "train_images 600"),
        ({"test_images": 500}, "test_images 500"),
        ({"recipe": OF_THE_STUDY | {"precision": "bfloat16"}}, "precision bfloat16"),
        ({"recipe": OF_THE_STUDY | {"dropout_p": 0.1}}, "dropout_p 0.1"),
        ({"recipe": OF_THE_STUDY | {"momentum": 0.9}}, "momentum 0.9"),
    ],
)
def test_a_run_under_other_circumstances_is_refused_and_named(study, capsys, facts, told):
    run = run_of("resnetb164", "baseline")
    write_metrics(study / f"metrics/{run.name}.json", dataclasses.replace(run.facts, **facts), run.history)
    line = refused(capsys)
    assert "resnetb164-baseline-0.json" in line and told in line


def test_runs_of_two_data_sets_are_refused_and_both_named(study, capsys):
    content = json.loads((study / "plan/study.json").read_bytes()) | {"dataset": "auto"}
    (study / "plan/study.json").write_bytes(canonical_json(content))
    run = run_of("resnetb164", "baseline", dataset="synthetic")
    write_metrics(study / f"metrics/{run.name}.json", run.facts, run.history)
    line = refused(capsys)
    assert "resnetb164-baseline-0.json is of the synthetic data set" in line and "of the cifar10 one" in line


def test_an_ordering_of_no_known_layers_is_refused(study, capsys):
    content = json.loads((study / "plan/study.json").read_bytes())
    content["runs"].append("resnet110-foo-0")
    (study / "plan/study.json").write_bytes(canonical_json(content))
    assert "plan/study.json is not what plan writes" in refused(capsys)


def test_a_damaged_file_is_refused_and_named(study, capsys):
    (study / "metrics/resnet164-baseline-0.json").write_text('{"history": [')
    assert "resnet164-baseline-0.json" in refused(capsys)
