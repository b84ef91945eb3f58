import io
import math

import pandas as pd
import pytest
from runs import NETWORKS, ORDERINGS, all_runs, run_with

from lib.report import claims
from lib.stats.paired import compare

EPOCHS = 10


def curve(reach_80, end=0.82):
    """Rises evenly to 0.8 at an epoch, then stands at its end."""
    rise = [0.8 * epoch / reach_80 for epoch in range(1, reach_80 + 1)]
    return (rise + [end] * EPOCHS)[:EPOCHS]


def arms(reach_80):
    """Runs by the epoch at which each arm's seeds reach 80 %; None is never."""
    never = [0.79] * EPOCHS
    return [
        run_with(curve(epoch) if epoch else never, ordering=ordering, seed=seed)
        for ordering, epochs in reach_80.items()
        for seed, epoch in enumerate(epochs)
    ]


def rows_of(runs, measure, ordering="conv_relu_ic"):
    (row,) = [row for row in claims.rows(runs) if row.measure.title == measure and row.ordering == ordering]
    return row


def test_every_measure_of_every_arm_has_a_row_measure_by_measure():
    table = claims.rows(all_runs())
    assert [(row.measure.title, row.network, row.ordering) for row in table] == [
        (measure, network, ordering)
        for measure in (
            *("Epochs to 70 %", "Epochs to 75 %", "Epochs to 80 %"),
            *("Area under the curve", "Late epoch-to-epoch change"),
        )
        for network in NETWORKS
        for ordering in ORDERINGS
    ]


def test_measures_are_of_the_runs_own_histories():
    runs = [run_with([0.1, 0.72, 0.6, 0.76], seed=0), run_with([0.2, 0.5, 0.9, 0.8], seed=1)]
    values = {row.measure.title: row.sample.values for row in claims.rows(runs)}
    assert values == {
        "Epochs to 70 %": (2, 3),
        "Epochs to 75 %": (4, 3),
        "Epochs to 80 %": (math.inf, 3),
        "Area under the curve": (pytest.approx((0.41 + 0.66 + 0.68) / 3), pytest.approx((0.35 + 0.7 + 0.85) / 3)),
        "Late epoch-to-epoch change": (pytest.approx((0.12 + 0.16) / 2), pytest.approx((0.4 + 0.1) / 2)),
    }


def test_fewer_epochs_and_less_change_win():
    runs = arms({"conv_relu_ic": [3, 4, 5], "baseline": [6, 8, 9]})
    row = rows_of(runs, "Epochs to 80 %")
    assert (row.text, row.to_baseline.mean, row.to_baseline.wins) == ("4.0 ± 1.0", pytest.approx(-11 / 3), 3)
    assert rows_of(runs, "Area under the curve").to_baseline.wins == 3
    assert rows_of(runs, "Late epoch-to-epoch change").to_baseline.wins == 3


def test_a_claims_comparisons_are_corrected_together_and_apart_from_the_other_claims():
    runs = arms({"conv_relu_ic": [3, 4, 6], "ic_conv_relu": [3, 6, 5], "baseline": [6, 8, 9]})
    table = [row for row in claims.rows(runs) if row.to_baseline]
    for claim, size in (("Faster convergence", 4 * 2), ("More stable training", 2)):
        family = [row.to_baseline for row in table if row.measure.claim == claim]
        assert len(family) == size
        smallest = min(family, key=lambda each: each.p)
        assert smallest.holm_p == pytest.approx(min(1, size * smallest.p))


def test_where_a_run_never_got_there_the_median_and_the_wins_are_told_and_no_test():
    runs = arms({"conv_relu_ic": [3, None, 5], "baseline": [6, None, None]})
    row = rows_of(runs, "Epochs to 80 %")
    assert row.text == "median 5.0 (2/3)"
    assert (row.to_baseline.wins, row.to_baseline.n) == (2, 3)
    assert (row.to_baseline.mean, row.to_baseline.p) == (None, None)
    assert rows_of(runs, "Epochs to 80 %", "baseline").text == "> 10 (1/3)"


def test_one_epoch_is_a_run_but_no_curve():
    runs = [run for seed in (0, 1) for run in all_runs(seed=seed, epochs=1)]
    table = claims.rows(runs)
    assert set(claims.overview(table)["n"]) == {"2"}
    text = claims.to_markdown(table, "Caption")
    assert "Area under the curve**, more is better. A point is no curve." in text
    assert "Late epoch-to-epoch change**, less is better. A point is no curve." in text


def test_comparisons_whose_runs_are_still_to_come_are_corrected_for():
    runs = arms({"conv_relu_ic": [3, 4, 6], "baseline": [6, 8, 9]})
    for planned, size in ((0, 4), (1, 4), (12, 48)):
        family = [row.to_baseline for row in claims.rows(runs, planned) if row.to_baseline][:4]
        smallest = min(family, key=lambda each: each.p)
        assert smallest.family == size and smallest.holm_p == pytest.approx(min(1, size * smallest.p))


def test_a_level_that_no_run_reached_is_a_line_instead_of_a_table():
    runs = [run for seed in (0, 1) for run in all_runs(seed=seed, epochs=3)]
    low = [run for run in runs if run.test_accuracy < 0.7]
    text = claims.to_markdown(claims.rows(low), "Caption")
    assert "Epochs to 80 %**, less is better. No run got there by epoch 3." in text
    assert "> 3 (0/2)" in text


def test_one_seed_is_told_to_support_no_claim_and_is_not_compared():
    text = claims.to_markdown(claims.rows(all_runs()), "Caption")
    assert text.startswith("Caption\n\n| Model")
    assert "support no claim" in text
    assert "±" not in text and "Wins" not in text and "**" not in text


def test_two_seeds_are_compared_measure_by_measure():
    runs = arms({"conv_relu_ic": [3, 4, 5], "baseline": [6, 8, 9]})
    text = claims.to_markdown(claims.rows(runs), "Caption")
    assert "support no claim" not in text
    assert text.count("| Wins |") == len(claims.MEASURES)
    bold = [row for row in claims.rows(runs) if row.to_baseline and row.to_baseline.supported]
    assert text.count("**") == 2 * (len(claims.MEASURES) + len(bold))


def test_without_a_baseline_the_measures_stand_alone():
    runs = arms({"conv_relu_ic": [3, 4, 5]})
    text = claims.to_markdown(claims.rows(runs), "Caption")
    assert "4.0 ± 1.0" in text and "Wins" not in text


def test_an_unfinished_run_has_not_converged_yet():
    finished = arms({"baseline": [6, 8]})
    unfinished = run_with([0.9, 0.9], seed=2, epochs=EPOCHS)
    assert claims.rows([*finished, unfinished]) == claims.rows(finished)
    assert all(row.sample.n == 0 for row in claims.rows([unfinished]))
    assert claims.to_markdown(claims.rows([unfinished]), "Caption")


def test_runs_of_one_epoch_have_levels_and_no_curve():
    runs = [
        run_with([0.75], ordering=ordering, seed=seed) for ordering in ("ic_conv_relu", "baseline") for seed in (0, 1)
    ]
    texts = claims.frame(claims.rows(runs))
    assert set(texts.loc[texts["Measure"] == "Epochs to 75 %", "Mean ± sd"]) == {"1.0 ± 0.0"}
    assert set(texts.loc[texts["Measure"] == "Area under the curve", "Mean ± sd"]) == {""}


def test_frame_and_overview_hold_the_same_texts():
    table = claims.rows(all_runs())
    wide, long = claims.overview(table), claims.frame(table)
    assert wide.shape == (16, 4 + len(claims.MEASURES)) and len(long) == len(table)
    for measure in claims.MEASURES:
        assert list(wide[measure.title]) == list(long.loc[long["Measure"] == measure.title, "Mean ± sd"])


def test_the_csv_holds_every_number_in_a_column_of_its_own():
    runs = arms({"conv_relu_ic": [3, 4, 6], "baseline": [6, 8, None]})
    read = pd.read_csv(io.StringIO(claims.to_csv(claims.rows(runs))))
    assert all(
        kind.kind in "if" for kind in read.drop(columns=["Claim", "Measure", "Model", "Layers in Residual Unit"]).dtypes
    )
    change = read[read["Measure"] == "Late epoch-to-epoch change"].iloc[0]
    expected = compare(
        *(
            {run.facts.seed: claims.MEASURES[-1](run) for run in runs if run.facts.ordering == ordering}
            for ordering in ("conv_relu_ic", "baseline")
        )
    )
    assert change["p"] == pytest.approx(expected.p, rel=1e-5)
    reached = read[read["Measure"] == "Epochs to 80 %"].iloc[1]
    assert (reached["Reached"], reached["n"], reached["Median"]) == (2, 3, 8)
