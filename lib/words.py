"""Counts and lists of names in sentences."""

from collections.abc import Sequence

SHOWN = 8  # names in a sentence


def counted(count: int, what: str) -> str:
    """As "1 epoch", "3 epochs"."""
    return f"{count} {what}" + "s" * (count != 1)


def some(names: Sequence[str]) -> str:
    """The names with commas; of many, the first and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
