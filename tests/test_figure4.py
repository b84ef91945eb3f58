import pytest
from runs import ORDERINGS, all_runs, arm_of, run_of, run_with, with_facts

from lib import figure4
from lib.paper import ordering_name
from lib.report import drawing
from lib.report.panels import comparable

LONG = ["dropout_bn_conv_relu", "conv_relu_dropout_bn", "relu_dropout_bn_relu_dropout_conv", "bn_conv_relu"]


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


@pytest.mark.parametrize("networks", [3, 5])
def test_three_or_five_networks_get_as_many_panels(networks):
    runs = [run for run in all_runs() if run.facts.network != "resnetb164"]
    for name in ("another", "yet_another")[: networks - 3]:
        runs.append(with_facts(runs[0], network=name))
    titles = [panel.get_title() for panel in figure4.draw(runs, "title", 0.1).axes if panel.axison]
    assert len(titles) == networks


def test_one_network_has_the_figures_whole_width():
    figure = figure4.draw([run for run in all_runs() if run.facts.network == "resnet110"], "title", 0.1)
    figure.draw_without_rendering()
    (panel,) = figure.axes
    assert panel.get_window_extent().width > 0.8 * figure.bbox.width


def test_several_seeds_become_one_curve_with_a_band():
    runs = [run_of("resnet110", "baseline", seed, accuracy=0.4 + 0.1 * seed) for seed in (0, 1)]
    panel = figure4.draw(runs, "title", 0.1).axes[0]
    (curve,) = [line for line in panel.get_lines() if len(line.get_xdata()) == 3]
    assert curve.get_ydata()[-1] == pytest.approx(0.45)
    assert len(panel.collections) == 1


def test_synthetic_data_is_named_in_the_panels():
    figure = figure4.draw(all_runs(dataset="synthetic"), "title", 0.1)
    assert figure.axes[0].get_title() == "(a) ResNet 110 on SYNTHETIC"


def test_what_the_accuracy_is_of_is_named_at_the_axis():
    figure = figure4.draw(all_runs(dataset="cifar10_validation"), "title", 0.1)
    assert figure.axes[0].get_title() == "(a) ResNet 110 on CIFAR-10 validation"
    assert figure.axes[0].get_ylabel() == "validation accuracy"
    assert figure4.draw(all_runs(), "title", 0.1).axes[0].get_ylabel() == "test accuracy"


@pytest.mark.parametrize(("accuracy", "bottom"), [(0.5, 0.3), (0.36, 0.3), (0.3001, None), (0.295, None), (0.2, None)])
def test_the_axis_begins_where_asked_unless_a_curve_stays_below_and_is_never_upside_down(accuracy, bottom):
    low, high = figure4.draw([run_of("resnet110", "baseline", accuracy=accuracy)], "title", 0.3).axes[0].get_ylim()
    assert low < high and high > accuracy
    assert low == bottom if bottom else low < accuracy / 3  # the lowest of its three epochs


def test_one_ordering_that_learns_nothing_is_shown_beside_those_that_do():
    runs = [*arm_of([0.8], ordering="ic_conv_relu"), *arm_of([0.1]), *arm_of([0.8], "resnet164")]
    assert figure4.draw(runs, "title", 0.3).axes[0].get_ylim()[0] < 0.1 / 3


def test_a_run_after_its_first_epoch_is_marked():
    """A line of one point has no length."""
    others = [run_with([0.5] * 20, ordering=ordering) for ordering in ORDERINGS[:3]]
    figure = figure4.draw([*others, run_with([0.4], epochs=20)], "title", 0.3)
    marks = [(len(line.get_ydata()), line.get_marker()) for line in figure.axes[0].lines if len(line.get_ydata())]
    assert sorted(marks) == [(1, "o"), *[(20, "None")] * 3]


def test_in_a_study_of_one_epoch_each_ordering_has_the_mark_of_the_legend():
    figure = figure4.draw([run_with([0.5], ordering=ordering) for ordering in ORDERINGS], "title", 0.3)
    drawn = [str(line.get_marker()) for line in figure.axes[0].lines if len(line.get_ydata())]
    (legend,) = figure.legends
    assert drawn == [str(handle.get_marker()) for handle in legend.legend_handles] and len(set(drawn)) == len(ORDERINGS)


@pytest.mark.parametrize("orderings", [["baseline"], ORDERINGS, [*ORDERINGS, *LONG], [*LONG, "relu_conv"]])
def test_the_legend_fits_the_figure_whatever_the_orderings(orderings):
    figure = figure4.draw([run_of("resnet110", each) for each in orderings], "title", 0.1)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    extent = legend.get_window_extent()
    assert 0 <= extent.x0 and extent.x1 <= figure.bbox.x1
    assert {text.get_text() for text in legend.get_texts()} == set(map(ordering_name, orderings))


def test_the_studys_orderings_stand_in_one_line():
    (legend,) = figure4.draw(all_runs(), "title", 0.1).legends
    assert legend._ncols == 4


def title_of(figure):
    return figure._suptitle.get_text().replace(drawing.NO_BREAK, " ")


def test_the_band_is_one_standard_deviation_each_way_and_the_title_says_so():
    figure = figure4.draw(arm_of([0.4, 0.5, 0.9]), "title", 0.1)  # mean 0.6, standard deviation sqrt(0.14 / 2)
    (band,) = figure.axes[0].collections
    last = band.get_paths()[0].vertices
    heights = {round(y, 6) for x, y in last if x == 3}
    assert heights == {round(0.6 - 0.07**0.5, 6), round(0.6 + 0.07**0.5, 6)}
    assert "one standard deviation" in title_of(figure)


def test_one_seed_has_no_band_and_the_title_does_not_speak_of_one():
    figure = figure4.draw(all_runs(), "title", 0.1)
    assert title_of(figure) == "title"


def test_a_long_title_is_broken_into_lines_that_the_figure_holds():
    title = "CIFAR-10, " + ", ".join(f"something unlike the study {place}" for place in range(9))
    figure = figure4.draw(all_runs(), title, 0.1)
    shown = title_of(figure)
    assert shown.count("\n") > 0 and shown.replace("\n", " ") == title
    assert all(line.endswith(",") for line in shown.splitlines()[:-1])
    figure.draw_without_rendering()
    extent = figure._suptitle.get_window_extent()
    assert 0 <= extent.x0 and extent.x1 <= figure.bbox.x1


def test_a_curve_is_the_mean_of_finished_runs_without_those_under_way():
    runs = [*arm_of([0.4, 0.5]), run_with([0.9, 0.9], seed=2, epochs=3)]
    (curve,) = [line for line in figure4.draw(runs, "title", 0.1).axes[0].get_lines() if len(line.get_xdata()) == 3]
    assert curve.get_ydata()[-1] == pytest.approx(0.45)


def test_while_none_is_finished_the_curve_goes_as_far_as_all_have_come():
    runs = [run_with([0.2, 0.3, 0.4], seed=0, epochs=5), run_with([0.4, 0.5], seed=1, epochs=5)]
    shown = comparable(runs)
    assert [len(run.history) for run in shown] == [2, 2]
    assert [run.facts.seed for run in shown] == [0, 1]


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_equal_figures_are_identical_files(kind):
    runs = arm_of([0.4, 0.5])
    first, second = (drawing.rendered(figure4.draw(runs, "title", 0.1), kind, 50) for _ in range(2))
    assert first == second
