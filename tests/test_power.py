import dataclasses
import json
import math
import sys

import numpy as np
import pytest
from runs import NETWORKS, ORDERINGS, all_runs, arm_of, write_study
from scipy import stats
from statsmodels.stats.power import TTestPower

from lib import table1
from lib.metrics import RunMetrics
from lib.report.results import comparisons_of
from lib.stats.paired import Comparison, t_test
from lib.stats.power import MOST, POWER, measured, power, seeds_needed
from tools import power as tool


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_textbook_numbers_of_pairs(effect, seeds):
    """Two-sided at 0.05, power 0.8, as G*Power 3 gives them for a difference between two dependent means."""
    assert seeds_needed(effect, 1.0) == seeds


@pytest.mark.parametrize("level", [0.05, 0.05 / 12])
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 40])
def test_power_is_statsmodels(effect, seeds, level):
    theirs = TTestPower().power(effect, seeds, level)
    if math.isnan(theirs):
        pytest.skip("scipy's noncentral t gives up here, and statsmodels with it")
    assert power(effect, 1.0, seeds, level) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("effect", [0.01, 1, 5, 50, 500])
@pytest.mark.parametrize("seeds", [2, 5, 50, 1000])
def test_power_is_a_number_where_statsmodels_is_not(effect, seeds):
    assert 0.05 <= power(effect, 1.0, seeds) <= 1


@pytest.mark.parametrize(("effect", "seeds"), [(3.0, 3), (1.5, 5), (1.0, 10)])
def test_so_many_studies_see_the_difference(effect, seeds):
    """The chance as computed is the one that the table's own test has, of 20,000 made-up studies."""
    random = np.random.default_rng(seeds)
    _, _, p = t_test(random.normal(effect, 1, (20_000, seeds)), np.zeros((20_000, seeds)))
    assert np.mean(p < 0.05) == pytest.approx(power(effect, 1.0, seeds), abs=0.01)


@pytest.mark.parametrize("difference", [0.002, 0.005, 0.02])
def test_one_seed_fewer_is_too_few(difference):
    seeds = seeds_needed(difference, 0.006, 0.05 / 12)
    assert power(difference, 0.006, seeds, 0.05 / 12) >= POWER > power(difference, 0.006, seeds - 1, 0.05 / 12)


def test_a_difference_out_of_reach_is_told_as_such():
    assert seeds_needed(0.0001, 0.01) is None
    assert seeds_needed(10.0, 0.01) == 2
    assert power(0.001, 0.01, MOST) > 0.8


def comparison(n, sd):
    return Comparison(n=n, wins=0, mean=0.0, sd=sd)


@pytest.mark.parametrize(("n", "least", "most"), [(3, 0.52, 6.28), (5, 0.60, 2.87), (10, 0.69, 1.83)])
def test_a_standard_deviation_from_few_seeds_is_known_within_factors(n, least, most):
    """The chi-squared range, by the tables."""
    spread = measured([("resnet110", comparison(n, 0.01))])
    assert spread.sd == pytest.approx(0.01)
    assert (spread.low, spread.high) == (pytest.approx(0.01 * least, abs=6e-5), pytest.approx(0.01 * most, abs=6e-5))


def test_variances_are_averaged_by_their_degrees_of_freedom():
    spread = measured([("a", comparison(3, 0.01)), ("b", comparison(5, 0.03)), ("c", comparison(1, None))])
    assert spread.sd == pytest.approx(math.sqrt((2 * 0.01**2 + 4 * 0.03**2) / 6))
    freedom = 6
    assert spread.low == pytest.approx(spread.sd * math.sqrt(freedom / stats.chi2.ppf(0.975, freedom)))


def test_comparisons_that_share_a_baseline_count_once_in_what_is_known_of_the_spread():
    one, three = ([("a", comparison(5, 0.01))] * count for count in (1, 3))
    assert measured(three) == measured(one)
    assert measured([*one, ("b", comparison(5, 0.01))]).high < measured(one).high


@pytest.mark.parametrize("comparisons", [[], [("a", comparison(1, None))], [("a", comparison(3, 0.0))]])
def test_no_spread_is_measured_without_two_seeds_or_where_all_are_equal(comparisons):
    assert measured(comparisons) is None


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_range_holds_the_true_spread_at_least_as_often_as_it_says(seeds):
    random = np.random.default_rng(seeds)
    accuracies = random.normal(0.8, 0.01, (2000, 4, 4, seeds))
    deviations = (accuracies[:, :, :3] - accuracies[:, :, 3:]).std(axis=-1, ddof=1)
    spreads = [
        measured([(str(network), comparison(seeds, sd)) for network in range(4) for sd in study[network]])
        for study in deviations
    ]
    assert 0.94 < np.mean([each.low < 0.01 * math.sqrt(2) < each.high for each in spreads])


@pytest.fixture
def project(tmp_path, monkeypatch, capsys):
    """`python -m tools.power` in a project with so many seeds; what it prints."""
    monkeypatch.chdir(tmp_path)

    def run(runs, *arguments, orderings=ORDERINGS):
        write_study(tmp_path, runs, orderings)
        return called(monkeypatch, capsys, *arguments)

    return run


def called(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["power", *arguments])
    tool.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("runs", [[], all_runs()], ids=["no run", "one seed"])
def test_before_two_seeds_the_spread_is_assumed_and_loudly_so(project, runs):
    out = project(runs)
    assert out.startswith("ASSUMED, NOT MEASURED") and "seeds=[0,1]" in out
    assert "varies by 0.57 points (0.28 to 0.85)" in out
    assert "of 12, corrected" in out


def test_from_two_seeds_on_the_spread_is_the_measured_one(project):
    runs = [*arm_of([0.51, 0.62, 0.73], ordering="conv_relu_ic"), *arm_of([0.5, 0.6, 0.7])]
    out = project(runs, "2.5")
    assert out.startswith("Measured in 1 comparison over 3 seeds")
    assert "varies by 1.00 points (0.52 to 6.28)" in out
    spreads = [0.01, 0.01 * math.sqrt(2 / stats.chi2.ppf(0.975, 2)), 0.01 * math.sqrt(2 / stats.chi2.ppf(0.025, 2))]
    for level in (0.05, 0.05 / 12):
        middle, low, high = (seeds_needed(0.025, sd, level) for sd in spreads)
        assert f" {middle} ({low} to {high}) " in out


def test_the_tool_reads_the_spread_that_the_table_shows(project):
    runs = [*arm_of([0.51, 0.62, 0.73], ordering="conv_relu_ic"), *arm_of([0.5, 0.6, 0.7])]
    (shown,) = [row.to_baseline for row in table1.rows(runs) if row.to_baseline]
    assert f"varies by {100 * shown.sd:.2f} points" in project(runs)


def test_runs_that_were_trained_otherwise_than_the_plan_says_are_left_out_and_named(project):
    """As in a clone: the metrics in git need not be those of params.yaml."""
    runs = [*arm_of([0.51, 0.62, 0.73], ordering="conv_relu_ic"), *arm_of([0.5, 0.6, 0.7])]
    others = [
        RunMetrics(dataclasses.replace(run.facts, recipe=run.facts.recipe | {"precision": "bfloat16"}), run.history)
        for run in runs
    ]
    left_out, assumed, *_ = project(others).splitlines()
    assert left_out.startswith("power: left out, since they were trained otherwise than the study says: resnet110")
    assert assumed.startswith("ASSUMED, NOT MEASURED")
    assert "Measured in 1 comparison over 2 seeds" in project([others[0], *runs[1:]])


def refused(project, capsys, *arguments, **study):
    with pytest.raises(SystemExit) as ending:
        project([], *arguments, **study)
    assert ending.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("text", ["0,5", "0", "-1", "nan", "inf", "100", "half"])
def test_what_is_no_difference_in_points_is_refused(project, capsys, monkeypatch, text):
    line = refused(project, capsys, "--", text)
    assert line == f"power: {text} is not a difference in points: give numbers between 0 and 100, such as 0.5"


def test_a_study_without_a_baseline_is_refused(project, capsys):
    assert "add baseline" in refused(project, capsys, orderings=ORDERINGS[:3])


def test_without_parameters_the_cure_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ending:
        called(monkeypatch, capsys)
    assert ending.value.code == 2
    assert "params.yaml is not there" in capsys.readouterr().err


def test_the_family_is_the_whole_studys_whatever_is_trained():
    names = [f"{network}-{ordering}-0" for network in NETWORKS for ordering in ORDERINGS]
    more = [*names, *(name[:-1] + "1" for name in names)]
    assert comparisons_of({"runs": names}) == comparisons_of({"runs": more}) == 12
    assert comparisons_of({"runs": ["a-baseline-0", "b-conv_relu_ic-0"]}) == 0


def test_damaged_metrics_are_refused_by_name(project, tmp_path, capsys, monkeypatch):
    project(all_runs())
    (tmp_path / "metrics/resnet110-baseline-0.json").write_text(json.dumps({}))
    with pytest.raises(SystemExit):
        called(monkeypatch, capsys)
    assert "resnet110-baseline-0.json" in capsys.readouterr().err
