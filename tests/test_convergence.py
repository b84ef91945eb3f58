import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.stats.convergence import area_under_curve, epochs_to_reach, late_change

curves = st.lists(st.integers(0, 10_000).map(lambda correct: correct / 10_000), min_size=2, max_size=60)


def test_the_first_epoch_at_the_level_counts_even_if_the_curve_falls_below_it_again():
    assert epochs_to_reach(0.7, [0.5, 0.69, 0.7, 0.6, 0.8]) == 3


def test_a_level_that_is_met_exactly_is_reached_and_the_first_epoch_is_epoch_one():
    assert epochs_to_reach(0.7, [0.7]) == 1


def test_a_level_that_is_never_met_is_infinitely_late():
    assert epochs_to_reach(0.8, [0.5, 0.7999]) == math.inf


@given(curves, st.floats(0.05, 0.95))
def test_a_higher_level_is_never_reached_sooner(curve, level):
    assert epochs_to_reach(level, curve) <= epochs_to_reach(level + 0.05, curve)


def test_the_area_by_hand():
    # Two trapezoids of width 1: (0.2 + 0.4) / 2 and (0.4 + 0.8) / 2, over a width of 2.
    assert area_under_curve([0.2, 0.4, 0.8]) == pytest.approx((0.3 + 0.6) / 2)


@given(curves)
def test_the_area_is_numpys(curve):
    assert area_under_curve(curve) == pytest.approx(np.trapezoid(curve) / (len(curve) - 1))
    assert min(curve) - 1e-12 <= area_under_curve(curve) <= max(curve) + 1e-12


def test_the_late_change_by_hand():
    # Six epochs: the changes into epochs 4, 5 and 6 are 0.1 up, 0.3 down, 0.2 up.
    assert late_change([0.0, 0.9, 0.5, 0.6, 0.3, 0.5]) == pytest.approx((0.1 + 0.3 + 0.2) / 3)
    # Five: half is two and a half, so those into epochs 3, 4 and 5.
    assert late_change([0.9, 0.5, 0.6, 0.3, 0.5]) == pytest.approx((0.1 + 0.3 + 0.2) / 3)


@given(curves)
def test_the_late_change_is_numpys_and_half_the_training_is_floored(curve):
    changes = np.abs(np.diff(curve))  # of these, entry i leads into epoch i + 2
    late = changes[len(curve) // 2 - 1 :]
    assert late_change(curve) == pytest.approx(late.mean(), abs=1e-12)
    assert len(late) == len(curve) - len(curve) // 2


@given(curves)
def test_what_came_before_half_the_training_does_not_count(curve):
    half = len(curve) // 2
    assert late_change([0.5] * (half - 1) + curve[half - 1 :]) == late_change(curve)


def test_a_hundred_epochs_have_fifty_late_changes():
    still = [0.8] * 50
    assert late_change([0.1, 0.9] * 25 + still) == pytest.approx(0.1 / 50)  # from 0.9 at epoch 50 to 0.8


def test_a_single_epoch_draws_no_curve():
    assert area_under_curve([0.5]) is late_change([0.5]) is None
