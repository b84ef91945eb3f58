"""Figure 4, tables and facts -> one HTML page that needs no network."""

import base64
import dataclasses
import hashlib
import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

from lib.report.look import legible

HERE = Path(__file__).parent  # the template, the style and the script lie beside this file
BACKGROUND = {"light": "#ffffff", "dark": "#14181d"}
CURVE_WIDTH = 2  # in pixels


@dataclasses.dataclass(frozen=True)
class Cell:
    """The text of a table cell. Numbers are right-aligned."""

    text: str
    number: bool
    bold: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table."""

    shared: list[str]  # names shared with its neighbours
    head: str  # its own name
    cells: list[Cell]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of text.

    The first `shared` columns name a group of rows and are shown once per group, the next one names a row in it. A
    `folded` table is shown when its caption is clicked.
    """

    caption: str
    frame: pd.DataFrame
    shared: int = 0
    bold: Collection[tuple[int, str]] = ()  # cells, by row (from 0) and column
    folded: bool = False

    @property
    def heads(self) -> list[Cell]:
        """The column heads; those right of a row's own name are numeric if their column has only numbers."""
        return [
            Cell(str(name), place > self.shared and all(map(_is_number, self.frame.iloc[:, place])))
            for place, name in enumerate(self.frame.columns)
        ]

    @property
    def groups(self) -> list[list[Row]]:
        """The rows; consecutive ones with the same shared names together."""
        heads = self.heads
        rows = [self._row(*line, heads) for line in enumerate(self.frame.itertuples(index=False))]
        return [list(group) for _, group in itertools.groupby(rows, key=lambda row: row.shared)]

    def _row(self, place: int, texts: Sequence[str], heads: Sequence[Cell]) -> Row:
        cells = [
            Cell(text or "–", head.number, (place, head.text) in self.bold)
            for text, head in zip(texts, heads, strict=True)
        ]
        return Row([cell.text for cell in cells[: self.shared]], cells[self.shared].text, cells[self.shared + 1 :])


@dataclasses.dataclass(frozen=True)
class Section:
    """Tables under a heading."""

    key: str  # an HTML id
    title: str
    tables: Sequence[Table]
    notes: Sequence[str]  # how to read them, a paragraph each
    lead: str = ""  # what they are about


@dataclasses.dataclass(frozen=True)
class Page:
    """What the page shows. All text is plain: what HTML would interpret is escaped."""

    summary: str  # what the results are worth, in one line
    warnings: Sequence[str]  # what a reader must know before all else
    figure: dict[str, Any]  # as lib.report.curves.figure4 gives it
    sections: Sequence[Section]
    facts: Mapping[str, str]  # what was run


def to_html(page: Page) -> str:
    """The whole page, with its style, scripts and data inline. Equal pages give identical text.

    Its Content-Security-Policy blocks all fetching, and all scripts but its own two, by their hashes: even text that
    was left unescaped could do no harm.
    """
    scripts = [get_plotlyjs(), _beside("page.js")]
    policy = {
        "default-src": "'none'",
        "script-src": " ".join(_hash(script) for script in scripts),
        "style-src": "'unsafe-inline'",  # Plotly writes style attributes
        "img-src": "data:",  # the empty icon, without which a browser would ask a server for one
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    figure = page.figure
    curves = [curve for panel in figure["panels"] for curve in panel["curves"]]
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_beside("page.html")).render(
        page=page,
        background=BACKGROUND,
        orderings=[_swatch(ordering) for ordering in figure["orderings"]],
        several=len(figure["seeds"]) > 1,
        has_paper=any(curve["paper"] is not None for curve in curves),
        has_end=figure["epochs"] >= 10,
        policy="; ".join(f"{directive} {sources}" for directive, sources in policy.items()),
        style=_beside("page.css"),
        scripts=scripts,
    )


def _swatch(ordering: Mapping[str, Any]) -> dict[str, str]:
    """An ordering's sample of its curve, in colours that stand out from either background."""
    colours = {theme: legible(ordering["colour"], background) for theme, background in BACKGROUND.items()}
    dashes = " ".join(f"{CURVE_WIDTH * each:g}" for each in ordering["dashes"]) or "none"
    return {"name": ordering["name"], "width": f"{CURVE_WIDTH}px", "dashes": dashes, **colours}


def _beside(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """An inline script's name in a Content-Security-Policy (CSP Level 3, "hash-source")."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _is_number(text: str) -> bool:
    """Whether a text is numbers and signs, or a median; empty text counts as a number."""
    return re.fullmatch(r"(median )?[-+±<>/., %\d()\[\]]*", text) is not None
