import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.stats.sample import Sample

NEVER = math.inf


def test_a_sample_by_hand():
    sample = Sample((0.1, 0.2, 0.6))
    assert (sample.n, sample.reached, sample.censored) == (3, 3, False)
    assert sample.mean == pytest.approx(0.3)
    assert sample.sd == pytest.approx(math.sqrt((0.04 + 0.01 + 0.09) / 2))
    assert sample.median == 0.2


@given(st.lists(st.floats(0, 1), min_size=2))
def test_mean_and_standard_deviation_are_those_of_the_standard_library(values):
    sample = Sample(tuple(values))
    assert sample.mean == pytest.approx(statistics.mean(values))
    assert sample.sd == pytest.approx(statistics.stdev(values), abs=1e-12)


def test_one_value_has_no_standard_deviation_and_none_has_nothing():
    assert (Sample((0.5,)).mean, Sample((0.5,)).sd) == (0.5, None)
    assert (Sample(()).n, Sample(()).mean, Sample(()).sd, Sample(()).median) == (0, None, None, None)


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ((12, NEVER, 15), 15),
        ((NEVER, NEVER, 12), NEVER),
        ((12, NEVER), NEVER),
        ((NEVER,), NEVER),
        ((9, 12, 15, NEVER), 13.5),
    ],
)
def test_runs_that_never_got_there_leave_a_median_and_no_mean(values, median):
    sample = Sample(values)
    assert sample.censored and sample.reached == sum(value < NEVER for value in values)
    assert (sample.mean, sample.sd) == (None, None)
    assert sample.median == median
