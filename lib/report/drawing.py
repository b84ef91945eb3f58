"""What the figures share: a style, a colour and a marker per ordering, reproducible files."""

import io
import math
import textwrap
from itertools import cycle, islice

import matplotlib
import seaborn as sns
from matplotlib.figure import Figure

from lib.report.look import looks

LETTERS_TO_AN_INCH = 13  # in a title, at most
NO_BREAK = "\u00a0"  # a space
# Filled, so that they can be hollow too. Nine, so that with ten colours no two of ninety are alike.
MARKERS = "oXsPDv^<>"


def figure(width: float, height: float, title: str) -> Figure:
    """An empty figure in the common style; size in inches."""
    sns.set_theme(context="paper", style="whitegrid")
    empty = Figure(figsize=(width, height), layout="constrained")
    lines = [_wrapped(line, int(width * LETTERS_TO_AN_INCH)) for line in title.splitlines()]
    empty.suptitle("\n".join(lines), fontsize=10, parse_math=False)  # a device may be called anything
    return empty


def _wrapped(line: str, most: int) -> str:
    """Wrap a line into lines of similar length, at most `most`, after commas; longer parts are split anywhere."""
    lines = math.ceil(len(line) / most)
    unbroken = ", ".join(part.replace(" ", NO_BREAK) for part in line.split(", "))
    return textwrap.fill(unbroken, min(most, len(line) // lines + 10), break_on_hyphens=False) if lines else line


def colours(count: int) -> list[str]:
    """`count` colours from a colour-blind palette of ten, repeated beyond that."""
    return [look.colour for look in looks(count)]


def markers(count: int) -> list[str]:
    """`count` markers of nine shapes, repeated beyond that."""
    return list(islice(cycle(MARKERS), count))


def rendered(drawn: Figure, kind: str, dpi: int) -> bytes:
    """The figure as a file ("svg" or "png") without dates, versions or random ids: equal figures, equal bytes."""
    content = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": "figure4"}):
        drawn.savefig(content, format=kind, dpi=dpi, metadata=metadata)
    return content.getvalue()
