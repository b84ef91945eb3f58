"""A data frame of text -> a Markdown table with aligned columns, readable as plain text too."""

from collections.abc import Sequence

import pandas as pd


def table(frame: pd.DataFrame, named_once: Sequence[str] = (), names: int = 3) -> str:
    """The table; empty cells show a dash. The first `names` columns are names, the others right-aligned numbers.

    In the columns `named_once`, outermost group first, a name is shown only in its first row, as in Table 1 of the
    paper.
    """
    shown = frame.replace("", "–")
    repeated = pd.Series(True, frame.index)
    for column in named_once:
        repeated &= frame[column].eq(frame[column].shift())
        shown.loc[repeated, column] = ""
    lines = [list(shown.columns), *shown.values.tolist()]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(shown.columns))]
    texts = [
        [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    texts.insert(1, ["-" * (width - 1) + ("-" if column < names else ":") for column, width in enumerate(widths)])
    return "".join(f"| {' | '.join(line)} |\n" for line in texts)


def bold(frame: pd.DataFrame, column: str, supported: Sequence[bool]) -> pd.DataFrame:
    """The frame with the column's text in bold in supported rows."""
    marked = [f"**{text}**" if each else text for text, each in zip(frame[column], supported, strict=True)]
    return frame.assign(**{column: marked})
