import dataclasses

import pytest
from runs import arm_of, run_of, run_with

from lib import table1
from lib.errors import BadInput
from lib.report import claims
from lib.stats.arms import arms_of, unequal_seeds, with_baselines


def test_arms_stand_in_the_order_in_which_runs_name_them_and_hold_their_seeds():
    runs = [
        run_of("resnetb110", "conv_relu_ic", 1),
        run_of("resnet110", "baseline", 0),
        run_of("resnetb110", "conv_relu_ic", 0),
    ]
    arms = arms_of(runs)
    assert [arm.name for arm in arms] == ["resnetb110-conv_relu_ic", "resnet110-baseline"]
    assert [list(arm.runs) for arm in arms] == [[1, 0], [0]]


def test_a_run_that_is_not_finished_is_there_and_does_not_count():
    (arm,) = arms_of([run_with([0.1, 0.2], seed=0), run_with([0.1, 0.2], seed=1, epochs=3)])
    assert list(arm.runs) == [0, 1]
    assert list(arm.finished) == [0]
    assert arm.measured(lambda run: run.test_accuracy) == {0: 0.2}


def test_a_run_of_which_there_is_no_such_number_is_left_out():
    (arm,) = arms_of(arm_of([0.1, 0.2, 0.3]))
    assert arm.measured(lambda run: None if run.facts.seed == 1 else run.test_accuracy) == {0: 0.1, 2: 0.3}


@pytest.mark.parametrize("of_runs", [arms_of, table1.rows, claims.rows])
def test_a_seed_that_stands_twice_is_refused_by_name_in_one_line(of_runs):
    runs = arm_of([0.1, 0.2])
    with pytest.raises(BadInput, match="resnet110-baseline-1 occurs twice.*leave one out") as refusal:
        of_runs([*runs, dataclasses.replace(runs[1])])
    assert "\n" not in str(refusal.value)


def test_a_baseline_is_that_of_the_same_network():
    names = ["resnet110-ic_conv_relu", "resnet110-baseline", "resnet164-baseline", "resnetb110-ic_conv_relu"]
    arms = arms_of([run_of(*name.split("-")) for name in names])
    pairs = [(arm.name, baseline and baseline.name) for arm, baseline in with_baselines(arms)]
    assert pairs == [(names[0], names[1]), (names[1], None), (names[2], None), (names[3], None)]


def test_equal_seeds_need_no_word():
    runs = [
        *arm_of([0.1, 0.2], "resnet110"),
        *arm_of([0.1, 0.2], "resnet110", "conv_relu_ic"),
        *arm_of([0.1], "resnet164"),
    ]
    assert unequal_seeds(arms_of(runs)) is None


def test_unequal_seeds_are_told_in_one_line_with_who_lacks_what():
    runs = [
        *arm_of([0.1, 0.2, 0.3, 0.4]),
        *arm_of([0.1, 0.2], ordering="conv_relu_ic"),
        run_with([0.1, 0.2], ordering="ic_conv_relu", seed=0, epochs=3),  # not finished: as good as missing
        run_of("resnet110", "ic_conv_relu", 9),
    ]
    line = unequal_seeds(arms_of(runs))
    assert "resnet110-conv_relu_ic lacks 2, 3, 9;" in line
    assert "resnet110-ic_conv_relu lacks 0, 1, 2, 3;" in line
    assert "resnet110-baseline lacks 9;" in line
    assert "\n" not in line
