"""Types of command-line options; argparse names the option whose value is not valid."""


def count(text: str) -> int:
    """A number of things, at least one."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def above_zero(text: str) -> float:
    """A finite number greater than zero."""
    if not 0 < (number := float(text)) < float("inf"):
        raise ValueError
    return number
