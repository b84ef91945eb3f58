"""Counts, lists of names and near misses as text."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

SHOWN = 8  # names in a sentence


def counted(count: int, what: str) -> str:
    """As "1 epoch", "3 epochs"."""
    return f"{count} {what}" + "s" * (count != 1)


def some(names: Sequence[str]) -> str:
    """The names, comma-separated; of many, the first and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def nearest(word: Any, known: Iterable[Any]) -> str:
    """As "; did you mean epochs?", for the known word most like this one; empty if none is close."""
    matches = difflib.get_close_matches(str(word), map(str, known), n=1)
    return f"; did you mean {matches[0]}?" if matches else ""
