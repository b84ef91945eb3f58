import math

import pytest

from lib.report import cells
from lib.stats.paired import Comparison
from lib.stats.sample import Sample

WHOLE = Comparison(n=5, wins=4, mean=0.0202, sd=0.01, low=-0.0001, high=0.04051, p=0.0123456789, holm_p=0.0493827156)


@pytest.mark.parametrize(
    ("value", "sign", "text"),
    [(None, "+", ""), (0.5, "", "0.5000"), (0.5, "+", "+0.5000"), (-1e-9, "+", "+0.0000"), (-0.00006, "+", "-0.0001")],
)
def test_numbers_have_their_decimals_and_no_negative_zero(value, sign, text):
    assert cells.number(value, 4, sign) == text


@pytest.mark.parametrize(
    ("values", "text"), [((), ""), ((0.5,), "0.5000"), ((0.5, 0.6), "0.5500 ± 0.0707"), ((0.5, 0.5), "0.5000 ± 0.0000")]
)
def test_a_single_run_has_no_plus_minus(values, text):
    assert cells.mean_and_sd(Sample(values), 4) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((12, 15, math.inf), "median 15.0 (2/3)"),
        ((12, math.inf, math.inf), "> 100 (1/3)"),
        ((12, math.inf), "> 100 (1/2)"),
        ((math.inf,), "> 100 (0/1)"),
    ],
)
def test_runs_that_did_not_get_there_are_counted(values, text):
    assert cells.median_and_reached(Sample(values), 1, 100) == text


def test_a_whole_comparison():
    assert cells.comparison(WHOLE, 4) == ["+0.0202", "[-0.0001, +0.0405]", "4/5", "0.0494"]
    assert cells.numbers(WHOLE, 6) == ["0.020200", "-0.000100", "0.040510", "5", "4", "0.0123457", "0.0493827"]


@pytest.mark.parametrize("compared", [None, Comparison(n=0, wins=0)])
def test_no_comparison_is_as_many_empty_cells(compared):
    assert cells.comparison(compared, 4) == [""] * len(cells.COMPARISON)
    assert cells.numbers(compared, 4) == [""] * len(cells.NUMBERS)


def test_what_the_data_cannot_say_stays_empty():
    assert cells.comparison(Comparison(n=1, wins=1, mean=0.1), 4) == ["+0.1000", "", "1/1", ""]
    assert cells.comparison(Comparison(n=3, wins=2), 1) == ["", "", "2/3", ""]


@pytest.mark.parametrize(("p", "text"), [(None, ""), (1.0, "1.0000"), (0.00009, "<0.0001"), (0.0001, "0.0001")])
def test_p_is_never_zero(p, text):
    assert cells.p_value(p) == text
