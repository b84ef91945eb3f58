import gc
import math
import re
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runs import arm_of
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from lib import table1
from lib.stats.arms import arms_of
from lib.stats.paired import Comparison, against_baselines, compare, corrected, t_test

# Student's own example (1908, Biometrika 6:1; R's `sleep`): hours of sleep gained by ten patients under two drugs. R's
# t.test(paired = TRUE) prints t = -4.0621, df = 9, p = 0.002833, the interval -2.4598858 to -0.7001142, the mean -1.58.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


@pytest.fixture
def no_sweeps(monkeypatch):
    """statsmodels sweeps the memory each time it corrects a family, which takes a hundred times longer than that."""
    monkeypatch.setattr(gc, "collect", lambda: 0)


def by_seed(values):
    return dict(enumerate(values))


def test_students_example_comes_out_as_in_r():
    compared = compare(by_seed(FIRST), by_seed(SECOND))
    assert compared.mean == pytest.approx(-1.58)
    assert (compared.low, compared.high) == (pytest.approx(-2.4598858, abs=1e-7), pytest.approx(-0.7001142, abs=1e-7))
    assert compared.p == pytest.approx(0.002833, abs=5e-7)
    assert (compared.n, compared.wins) == (10, 0)


def test_two_pairs_by_hand():
    # Differences 0.01 and 0.03: mean 0.02, sd 0.02 / sqrt(2), t = 0.02 / 0.01 = 2 at one degree of freedom, where t is
    # Cauchy: p = 1 - 2 atan(2) / pi, and the interval reaches tan(0.475 pi) = 12.706 standard errors to each side.
    compared = compare({0: 0.31, 1: 0.33}, {0: 0.30, 1: 0.30})
    assert compared.mean == pytest.approx(0.02)
    assert compared.sd == pytest.approx(0.02 / math.sqrt(2))
    assert compared.p == pytest.approx(1 - 2 * math.atan(2) / math.pi)
    half = math.tan(0.475 * math.pi) * 0.01
    assert (compared.low, compared.high) == (pytest.approx(0.02 - half), pytest.approx(0.02 + half))


def test_three_pairs_by_hand():
    # Differences 0.01, 0.02, 0.03: t = 0.02 / (0.01 / sqrt(3)) = 3.4641 at two degrees of freedom, of which
    # p = 1 - t / sqrt(t^2 + 2) = 0.0742, and t(0.975, 2) = 4.3027.
    compared = compare({0: 0.31, 1: 0.32, 2: 0.33}, {0: 0.30, 1: 0.30, 2: 0.30})
    assert compared.p == pytest.approx(1 - math.sqrt(12 / 14))
    assert compared.high == pytest.approx(0.02 + 4.302653 * 0.01 / math.sqrt(3), rel=1e-6)


values = st.lists(
    st.tuples(*[st.integers(0, 10_000).map(lambda correct: correct / 10_000)] * 2), min_size=2, max_size=12
)


@given(values)
def test_mean_interval_and_p_are_those_of_an_independent_implementation(pairs):
    arm, baseline = zip(*pairs, strict=True)
    compared = compare(by_seed(arm), by_seed(baseline))
    differences = np.subtract(arm, baseline)
    assert compared.mean == pytest.approx(differences.mean(), abs=1e-12)
    assert compared.sd == pytest.approx(differences.std(ddof=1), abs=1e-12)
    if np.ptp(differences) < 1e-12:
        assert compared.p is compared.low is compared.high is None
        return
    sample = DescrStatsW(differences)
    assert compared.p == pytest.approx(sample.ttest_mean(0)[1], rel=1e-6, abs=1e-12)
    assert (compared.low, compared.high) == pytest.approx(sample.tconfint_mean(0.05), rel=1e-6, abs=1e-9)


@given(values)
def test_arms_swapped_give_the_opposite(pairs):
    arm, baseline = (by_seed(each) for each in zip(*pairs, strict=True))
    one, other = compare(arm, baseline), compare(baseline, arm)
    assert one.mean == -other.mean and one.p == pytest.approx(other.p)
    assert one.wins + other.wins == sum(a != b for a, b in pairs)
    assert compare(arm, baseline, higher_is_better=False).wins == other.wins
    if one.low is not None:
        assert one.low == pytest.approx(-other.high)


def test_pairs_are_of_the_same_seed_whatever_the_order_and_only_of_seeds_in_both():
    arm = {4: 0.9, 0: 0.31, 2: 0.33}
    baseline = {2: 0.30, 7: 0.1, 0: 0.30}
    assert compare(arm, baseline) == compare({0: 0.31, 2: 0.33}, {0: 0.30, 2: 0.30})


@pytest.mark.parametrize(("arm", "baseline"), [({}, {}), ({0: 0.5}, {}), ({0: 0.5}, {1: 0.5})])
def test_without_a_seed_in_common_nothing_is_said(arm, baseline):
    assert compare(arm, baseline) == Comparison(n=0, wins=0)


def test_one_pair_has_a_difference_and_no_more():
    compared = compare({0: 0.5}, {0: 0.25})
    assert compared == Comparison(n=1, wins=1, mean=0.25)
    assert not compared.supported


@pytest.mark.parametrize("arm", [{0: 0.32, 1: 0.42, 2: 0.52}, {0: 0.31, 1: 0.41, 2: 0.51}], ids=["better", "as good"])
def test_equal_differences_give_no_interval_of_width_zero_and_no_certainty(arm):
    compared = compare(arm, {0: 0.31, 1: 0.41, 2: 0.51})  # 0.32 - 0.31 is not 0.42 - 0.41 to a computer
    assert compared.mean == pytest.approx(arm[0] - 0.31)
    assert (compared.sd, compared.low, compared.high, compared.p) == (0, None, None, None)
    assert compared.wins == (3 if arm[0] > 0.31 else 0)


def test_of_runs_that_never_got_there_only_who_was_first_is_told():
    never = math.inf
    compared = compare({0: 12, 1: 20, 2: never, 3: never}, {0: 15, 1: never, 2: 30, 3: never}, higher_is_better=False)
    assert compared == Comparison(n=4, wins=2)


def test_holms_correction_by_hand():
    # Holm 1979: 0.005 x 4, 0.01 x 3, then 0.03 x 2, and 0.04 x 1, which may not fall below the one before it.
    family = [Comparison(5, 5, p=p) for p in (0.01, 0.04, 0.03, 0.005)]
    assert [each.holm_p for each in corrected(family)] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [each.supported for each in corrected(family)] == [True, False, False, True]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_holms_correction_is_the_closure_of_bonferronis(no_sweeps, p_values):
    """Which keeps the level whichever of the others are true (Marcus, Peritz, Gabriel 1976, Biometrika 63:655)."""
    everyone = range(len(p_values))
    sets = list(chain.from_iterable(combinations(everyone, size) for size in range(1, len(p_values) + 1)))
    closed = [max(min(1, len(s) * min(p_values[i] for i in s)) for s in sets if each in s) for each in everyone]
    family = corrected([Comparison(5, 5, p=p) for p in p_values])
    assert [each.holm_p for each in family] == pytest.approx(closed)


def test_a_comparison_without_p_counts_as_one_of_the_family_and_stays_without():
    family = corrected([None, Comparison(3, 3, p=0.02), Comparison(1, 1), None, Comparison(0, 0)])
    assert [each and each.holm_p for each in family] == [None, pytest.approx(0.06), None, None, None]


def test_comparisons_without_a_run_yet_count_as_well():
    (few,) = corrected([Comparison(3, 3, p=0.02)], planned=12)
    assert (few.holm_p, few.family) == (pytest.approx(0.24), 12)
    assert corrected([Comparison(3, 3, p=0.02)] * 3, planned=2)[0].family == 3


@pytest.mark.parametrize("family", [[], [None, None]])
def test_no_comparison_at_all_is_a_family_too(family):
    assert corrected(family) == family


def test_every_arm_is_compared_with_the_baseline_of_its_own_network():
    runs = [
        *arm_of([0.30, 0.34], "resnet110", "conv_relu_ic"),
        *arm_of([0.20, 0.21], "resnet110"),
        *arm_of([0.60, 0.61], "resnetb164", "conv_relu_ic"),
        *arm_of([0.9, 0.9], "resnet164"),
    ]
    compared = against_baselines(arms_of(runs), table1.accuracy)
    assert [each and each.mean for each in compared] == [pytest.approx(0.115), None, None, None]


# Whether the t-test keeps its promises at the few seeds there will be: 5 % of false positives, give or take one. Of so
# many repetitions the standard error of that is 0.1 points.
REPETITIONS = 40_000
ROOT = Path(__file__).parents[1]
TOLD = {  # in percent, by the number of seeds
    int(seeds): [float(each) for each in told]
    for seeds, *told in re.findall(
        r"^\| (\d+)" + r" \| ([\d.]+) %" * 4, (ROOT / "docs/statistics.md").read_text(), flags=re.MULTILINE
    )
}


def assert_told(seeds, column, rate):
    assert 100 * rate == pytest.approx(TOLD[seeds][column], abs=0.051)


def test_the_readme_tells_the_range_of_what_was_simulated():
    comparisons, _, tables, _ = zip(*TOLD.values(), strict=True)
    assert (
        f"false positives in {min(comparisons)} to {max(comparisons)} % of comparisons, "
        f"in {min(tables)} to {max(tables)} % of whole tables of 12"
    ) in (ROOT / "README.md").read_text()


def simulated(seeds, difference=0.0):
    """Accuracies of two arms that share a part of their seeds' luck: (repetitions, seeds) each."""
    random = np.random.default_rng(seeds)
    luck = random.normal(0.84, 0.003, (REPETITIONS, seeds))
    arm, baseline = (random.normal(luck, spread) for spread in (0.004, 0.006))
    return arm + difference, baseline


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_where_there_is_no_difference_one_test_in_twenty_finds_one(seeds):
    _, _, p = t_test(*simulated(seeds))
    assert 0.04 < np.mean(p < 0.05) < 0.06
    assert_told(seeds, 0, np.mean(p < 0.05))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_nineteen_intervals_in_twenty_hold_the_true_difference(seeds):
    low, high, _ = t_test(*simulated(seeds, difference=0.005))
    held = np.mean((low < 0.005) & (0.005 < high))
    assert 0.94 < held < 0.96
    assert_told(seeds, 1, held)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_simulation_would_notice_a_wrong_test(seeds):
    """The normal distribution's threshold instead of Student's, the usual slip, errs far more often."""
    arm, baseline = simulated(seeds)
    z = (arm - baseline).mean(axis=1) / ((arm - baseline).std(axis=1, ddof=1) / math.sqrt(seeds))
    assert np.mean(2 * stats.norm.sf(abs(z)) < 0.05) > 0.07


@pytest.mark.parametrize(("seeds", "least"), [(2, 0.02), (3, 0.035)])
def test_accuracies_are_counts_and_the_rate_stands_that_too(seeds, least):
    """500 test images, as in the rehearsal: one difference of two seeds in fifty is equal, and then says nothing."""
    counts = np.random.default_rng(0).binomial(500, 0.3, (2000, 2, seeds)) / 500
    compared = [compare(by_seed(arm), by_seed(baseline)) for arm, baseline in counts]
    assert seeds > 2 or any(each.p is None for each in compared)
    assert least < np.mean([each.p is not None and each.p < 0.05 for each in compared]) < 0.06


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_of_twenty_studies_without_any_effect_one_prints_something_bold(seeds, no_sweeps):
    """The whole table: four networks' three orderings, each network's against one baseline, corrected together."""
    repetitions = 2000
    accuracies = np.random.default_rng(seeds).normal(0.8, 0.01, (repetitions, 4, 4, seeds))
    _, _, p_values = t_test(accuracies[:, :, :3], accuracies[:, :, 3:])
    families = [[Comparison(seeds, 0, p=p) for p in study] for study in p_values.reshape(repetitions, 12)]
    false = np.mean([any(each.supported for each in corrected(family)) for family in families])
    assert 0.02 < false < 0.05 + 3 * math.sqrt(0.05 * 0.95 / repetitions)
    uncorrected = np.mean((p_values < 0.05).any(axis=(1, 2)))
    assert uncorrected > 0.25, "it would be one in three"
    assert_told(seeds, 2, false)
    assert_told(seeds, 3, uncorrected)
