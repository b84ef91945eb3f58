"""Figure 4: test accuracy against epoch, a panel per network, a curve per ordering."""

import dataclasses
from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib import drawing
from lib.arms import arms_of
from lib.metrics import RunMetrics
from lib.paper import data_name, model_name, ordering_name


def draw(runs: Sequence[RunMetrics], title: str, accuracy_from: float) -> Figure:
    """Figure 4 from the runs' histories; panels and curves in the order in which the runs first name them.

    Several seeds are drawn as their mean with a band of one standard deviation each way, and the title says so. Every
    ordering has its own dashes too: a colour-blind reader, or one of a grey print, can tell them apart.
    """
    runs = comparable(runs)
    networks = list(dict.fromkeys(run.facts.network for run in runs))
    orderings = list(dict.fromkeys(run.facts.ordering for run in runs))
    rows = (len(networks) + 1) // 2
    band = "\nlines: mean over seeds; bands: one standard deviation each way" * (len(runs) > len(arms_of(runs)))
    figure = drawing.figure(9.0, 3.4 * rows + 0.9, title + band)
    panels = figure.subplots(rows, 2, squeeze=False, sharey=True).flatten()
    for letter, network, panel in zip("abcdefghijklmnopqrstuvwxyz", networks, panels, strict=False):
        _panel(panel, [run for run in runs if run.facts.network == network], orderings, letter)
    for panel in panels[len(networks) :]:
        panel.set_axis_off()
    first = figure.axes[0]
    first.set_ylim(bottom=accuracy_from)
    handles, labels = first.get_legend_handles_labels()
    if legend := first.get_legend():
        legend.remove()  # one for all panels, below them
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def comparable(runs: Sequence[RunMetrics]) -> list[RunMetrics]:
    """The runs that one curve may average: an arm's finished ones, and while none is, those under way.

    A mean would jump where a shorter run ends; hence runs under way are drawn as far as all of their arm have come.
    """
    shown: list[RunMetrics] = []
    for arm in arms_of(runs):
        shortest = min(len(run.history) for run in arm.runs.values())
        under_way = [dataclasses.replace(run, history=run.history[:shortest]) for run in arm.runs.values()]
        shown += arm.finished.values() or under_way
    return shown


def _panel(panel: Axes, runs: Sequence[RunMetrics], orderings: Sequence[str], letter: str) -> None:
    """One network's curves."""
    table = pd.DataFrame(
        {"epoch": record.epoch, "accuracy": record.test_accuracy, "ordering": ordering_name(run.facts.ordering)}
        for run in runs
        for record in run.history
    )
    names = [ordering_name(ordering) for ordering in orderings]
    sns.lineplot(
        table,
        x="epoch",
        y="accuracy",
        hue="ordering",
        style="ordering",
        hue_order=names,
        style_order=names,
        palette=drawing.colours(len(names)),
        markers=table["epoch"].nunique() <= 10,
        errorbar="sd",
        legend=letter == "a",
        ax=panel,
    )
    facts = runs[0].facts
    panel.set_title(f"({letter}) {model_name(facts.block)} {facts.depth} on {data_name(facts.dataset)}")
    panel.set(xlabel="epoch", ylabel="test accuracy")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
