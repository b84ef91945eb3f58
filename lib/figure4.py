"""Figure 4: test accuracy against epoch, a panel per network, a curve per ordering."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib.metrics import RunMetrics
from lib.paper import ordering_name, split_of
from lib.report import drawing
from lib.report.look import looks
from lib.report.panels import FEW_EPOCHS, LEAST_HEIGHT, Panel, comparable, orderings_of, panels_of
from lib.stats.arms import arms_of

LINE_OF_LEGEND = 0.65  # inches of an entry besides its name, at most
LETTERS_OF_LEGEND = 12  # of a name per inch, at least


def draw(runs: Sequence[RunMetrics], title: str, accuracy_from: float) -> Figure:
    """Figure 4 from the runs' histories; panels and curves in order of first appearance among the runs.

    Several seeds are drawn as their mean with a band of one standard deviation each way, and the title says so. Up to
    seven orderings also differ by their dashes, for colour-blind readers and greyscale prints.
    """
    runs = comparable(runs)
    panels = panels_of(runs)
    names = [ordering_name(ordering) for ordering in orderings_of(runs)]
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    band = "\nlines: mean over seeds; bands: one standard deviation each way" * (len(runs) > len(arms_of(runs)))
    figure = drawing.figure(9.0, 3.4 * rows + 0.9, title + band)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for place, panel in enumerate(panels):
        _draw(axes[place], panel, names, legend=place == 0)
    for unused in axes[len(panels) :]:
        unused.set_axis_off()
    first = figure.axes[0]
    peaks = [heights.max() for each in axes for heights in map(_heights, each.lines) if heights.size]
    if min(peaks) >= accuracy_from + LEAST_HEIGHT:
        first.set_ylim(bottom=accuracy_from)
    handles, labels = first.get_legend_handles_labels()
    if legend := first.get_legend():
        legend.remove()  # one for all panels, below
    beside = _side_by_side(labels, figure.get_figwidth())
    figure.legend(handles, labels, loc="outside lower center", ncols=beside, frameon=False)
    return figure


def _side_by_side(names: Sequence[str], width: float) -> int:
    """How many legend entries fit side by side in `width` inches: all of them if possible."""
    inches = [LINE_OF_LEGEND + len(name) / LETTERS_OF_LEGEND for name in names]
    return len(names) if sum(inches) <= width else max(1, int(width / max(inches)))


def _heights(line: Line2D) -> np.ndarray:
    """The accuracies that a line is drawn through; none for a line that only makes a legend entry."""
    return np.asarray(line.get_ydata())


def _draw(axes: Axes, panel: Panel, names: Sequence[str], legend: bool) -> None:
    """One network's curves; `names` are the orderings of all panels, so that each looks the same in every one."""
    table = pd.DataFrame(
        {"epoch": record.epoch, "accuracy": record.test_accuracy, "ordering": ordering_name(run.facts.ordering)}
        for run in panel.runs
        for record in run.history
    )
    styles = looks(len(names))
    sns.lineplot(
        table,
        x="epoch",
        y="accuracy",
        hue="ordering",
        style="ordering",
        hue_order=names,
        style_order=names,
        palette=[style.colour for style in styles],
        dashes=[style.dashes for style in styles],
        markers=table["epoch"].nunique() <= FEW_EPOCHS,
        errorbar="sd",
        legend=legend,
        ax=axes,
    )
    for line in axes.lines:
        if _heights(line).size == 1 and line.get_marker() == "None":  # a curve of one epoch would be invisible
            line.set_marker("o")
    axes.set_title(panel.title, parse_math=False)
    axes.set(xlabel="epoch", ylabel=f"{split_of(panel.runs[0].facts.dataset)} accuracy")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
