import math

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from runs import ORDERINGS, all_runs, arm_of, run_with

from lib.report import claims, claims_figure, drawing


def marks(panel):
    """Each arm's marks: heights, and whether each is filled."""
    return [
        (list(arm.get_offsets()[:, 1]), [len(face) > 0 and face[3] > 0 for face in np.atleast_2d(arm.get_facecolors())])
        for arm in panel.collections
        if isinstance(arm, PathCollection)
    ]


def test_a_panel_per_measure_and_a_mark_per_run():
    runs = [run for seed in (0, 1, 2) for run in all_runs(seed=seed)]
    table = claims.rows(runs)
    panels = claims_figure.draw(table, "title").axes
    assert [panel.get_title().split(" (")[0] for panel in panels[:5]] == [measure.title for measure in claims.MEASURES]
    drawn = [heights for panel in panels[3:5] for heights, _ in marks(panel)]
    assert drawn == [pytest.approx(row.sample.values) for row in table if not row.measure.of_epochs]


def test_a_bar_is_a_standard_deviation_to_either_side_of_the_mean():
    figure = claims_figure.draw(claims.rows(arm_of([0.5, 0.6, 0.8])), "title")
    (bar,) = figure.axes[3].containers
    ((low, high),) = [sorted(segment[:, 1]) for segment in bar.lines[2][0].get_segments()]
    row = next(row for row in claims.rows(arm_of([0.5, 0.6, 0.8])) if row.measure.title == "Area under the curve")
    mean, sd = row.sample.mean, row.sample.sd
    assert (low, high) == pytest.approx((mean - sd, mean + sd))


def test_orderings_differ_in_colour_and_mark_and_the_legend_names_them():
    figure = claims_figure.draw(claims.rows(all_runs()), "title")
    legend = figure.axes[5].get_legend()
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts[:4] == ["ReLU-IC-Conv2D", "IC-Conv2D-ReLU", "Conv2D-ReLU-IC", "Baseline"]
    handles = legend.legend_handles[:4]
    assert len({handle.get_color() for handle in handles}) == len({handle.get_marker() for handle in handles}) == 4


def test_a_run_that_never_got_there_is_a_hollow_mark_above_the_last_epoch():
    runs = [run_with([0.75, 0.75, 0.9], seed=0), run_with([0.75, 0.75, 0.75], seed=1)]
    table = claims.rows(runs)
    figure = claims_figure.draw(table, "title")
    ((heights, filled),) = marks(figure.axes[2])
    assert table[2].sample.values == (3, math.inf)
    assert heights[0] == 3 and 3 < heights[1] <= figure.axes[2].get_ylim()[1]
    assert filled == [True, False]
    assert claims_figure.HOLLOW in [text.get_text() for text in figure.axes[5].get_legend().get_texts()]


def test_where_all_got_there_nothing_is_said_of_hollow_marks():
    figure = claims_figure.draw(claims.rows(arm_of([0.9, 0.95])), "title")
    assert claims_figure.HOLLOW not in [text.get_text() for text in figure.axes[5].get_legend().get_texts()]


@pytest.mark.parametrize(
    "runs",
    [[run_with([0.5])], [run_with([0.5], epochs=3)], arm_of([0.5, 0.6], ordering="ic_conv_relu")],
    ids=["one epoch", "none finished", "no baseline"],
)
def test_little_can_be_drawn_too(runs):
    assert drawing.rendered(claims_figure.draw(claims.rows(runs), "title"), "png", 50)


def test_equal_figures_are_identical_files():
    table = claims.rows([run for seed in (0, 1) for run in all_runs(seed=seed)][: 2 * len(ORDERINGS)])
    first, second = (drawing.rendered(claims_figure.draw(table, "title"), "svg", 50) for _ in range(2))
    assert first == second
