"""The claims' measures as a figure: a panel per measure, a mark per run, mean and standard deviation beside them."""

import dataclasses
from collections.abc import Sequence
from math import isfinite

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from lib.paper import ordering_name
from lib.report import drawing
from lib.report.claims import MEASURES, Row

HOLLOW = "above the last epoch: never got there"
WIDTH = 0.8  # of a network's marks; networks are 1 apart


@dataclasses.dataclass(frozen=True)
class Style:
    """How an ordering is drawn."""

    colour: str
    marker: str
    offset: float  # from its network's tick
    width: float  # of its marks


def draw(table: Sequence[Row], title: str) -> Figure:
    """The figure of `claims.rows`. A hollow mark above the dashed line is a run that never reached the level."""
    styles = _styles(list(dict.fromkeys(row.ordering for row in table)))
    figure = drawing.figure(9.0, 9.0, f"{title}\nmarks: runs; bars: mean and one standard deviation each way")
    *panels, corner = figure.subplots(3, 2).flatten()
    for panel, measure in zip(panels, MEASURES, strict=True):
        _panel(panel, [row for row in table if row.measure == measure], styles)
    handles = [
        Line2D([], [], color=style.colour, marker=style.marker, linestyle="", label=ordering_name(ordering))
        for ordering, style in styles.items()
    ]
    hollow = Line2D([], [], color="0.5", marker="o", markerfacecolor="none", linestyle="--", label=HOLLOW)
    handles += [hollow] * any(row.sample.censored for row in table)
    corner.set_axis_off()
    corner.legend(handles=handles, loc="center", frameon=False)
    return figure


def _styles(orderings: Sequence[str]) -> dict[str, Style]:
    count = len(orderings)
    looks = zip(orderings, drawing.colours(count), drawing.markers(count), strict=True)
    return {
        ordering: Style(colour, marker, WIDTH * ((place + 0.5) / count - 0.5), WIDTH / count)
        for place, (ordering, colour, marker) in enumerate(looks)
    }


def _panel(panel: Axes, table: Sequence[Row], styles: dict[str, Style]) -> None:
    """One measure of all arms."""
    measure = table[0].measure
    networks = {row.network: f"{row.model}\n{row.depth}" for row in table}
    places = {network: place for place, network in enumerate(networks)}
    for row in table:
        _arm(panel, row, places[row.network], styles[row.ordering])
    if any(row.sample.censored for row in table):
        panel.axhline(table[0].epochs, color="0.5", linestyle="--", linewidth=0.8)
        panel.set_ylim(0, 1.12 * table[0].epochs)
    if measure.of_epochs:
        panel.yaxis.set_major_locator(MaxNLocator(integer=True))
    else:
        panel.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    panel.set_xticks(range(len(networks)), networks.values())
    panel.set_xlim(-0.5, len(networks) - 0.5)
    panel.grid(axis="x", visible=False)
    panel.set_title(f"{measure.title} ({'more' if measure.higher_is_better else 'less'} is better)")


def _arm(panel: Axes, row: Row, place: int, style: Style) -> None:
    """An arm's runs and, left of them, their mean and standard deviation."""
    x = place + style.offset
    never = 1.06 * row.epochs
    heights = [value if isfinite(value) else never for value in row.sample.values]
    faces = [style.colour if isfinite(value) else "none" for value in row.sample.values]
    count = len(heights)
    xs = [x + 0.5 * style.width * ((index + 0.5) / count - 0.4) for index in range(count)]
    panel.scatter(xs, heights, s=18, marker=style.marker, facecolors=faces, edgecolors=[style.colour], linewidths=0.8)
    if row.sample.mean is not None and row.sample.sd is not None:
        panel.errorbar(
            x - 0.35 * style.width, row.sample.mean, row.sample.sd, color=style.colour, fmt="_", capsize=2, linewidth=1
        )
