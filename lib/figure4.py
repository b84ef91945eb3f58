"""Figure 4: test accuracy against epoch, a panel per network, a curve per ordering."""

import io
from collections.abc import Sequence

import matplotlib
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib.metrics import RunMetrics
from lib.paper import data_name, model_name, ordering_name


def draw(runs: Sequence[RunMetrics], title: str, accuracy_from: float) -> Figure:
    """Figure 4 from the runs' histories; panels and curves in the order in which the runs first name them.

    Curves of several seeds are drawn as their mean with a band of one standard deviation. Colours are seaborn's
    colour-blind palette and every ordering has its own dashes: a colour-blind reader, or one of a grey print, can tell
    them apart.
    """
    networks = list(dict.fromkeys(run.facts.network for run in runs))
    orderings = list(dict.fromkeys(run.facts.ordering for run in runs))
    rows = (len(networks) + 1) // 2
    sns.set_theme(context="paper", style="whitegrid")
    figure = Figure(figsize=(9.0, 3.4 * rows + 0.9), layout="constrained")
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
    figure.suptitle(title, fontsize=10)
    return figure


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
        palette=sns.color_palette("colorblind", len(names)),
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


def rendered(figure: Figure, kind: str, dpi: int) -> bytes:
    """The figure as a file ("svg" or "png"); without dates, versions and random names, so that equal is identical."""
    content = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "figure4"}):
        figure.savefig(content, format=kind, dpi=dpi, metadata=metadata)
    return content.getvalue()
