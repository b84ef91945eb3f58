"""Kinds of command-line options; argparse names the option where a value is none."""


def some(text: str) -> int:
    """A number of things, one at least."""
    if (count := int(text)) < 1:
        raise ValueError
    return count


def above_zero(text: str) -> float:
    """A finite number above zero."""
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value
