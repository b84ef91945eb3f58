"""Kinds of command-line options; argparse names the option where a value is none."""


def count(text: str) -> int:
    """A number of things, one at least."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def above_zero(text: str) -> float:
    """A finite number above zero."""
    if not 0 < (number := float(text)) < float("inf"):
        raise ValueError
    return number
