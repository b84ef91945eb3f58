"""Statistics -> the text of table cells; empty where there is nothing to say."""

import math

from lib.stats.paired import Comparison
from lib.stats.sample import Sample

COMPARISON = ("Difference to baseline", "95 % interval", "Wins", "Holm p")  # column heads of `comparison`
NUMBERS = ("Difference to baseline", "Interval low", "Interval high", "Pairs", "Wins", "p", "Holm p")  # of `numbers`


def number(value: float | None, decimals: int, sign: str = "") -> str:
    """The value to this many decimals; adding 0 to a rounded one turns -0.0 into 0.0."""
    return "" if value is None else f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"


def mean_and_sd(sample: Sample, decimals: int) -> str:
    """Mean ± standard deviation; for a single run the mean alone."""
    return number(sample.mean, decimals) + (f" ± {number(sample.sd, decimals)}" if sample.sd is not None else "")


def median_and_reached(sample: Sample, decimals: int, end: int) -> str:
    """For runs that did not all reach the level by epoch `end`: the median of all, and how many did.

    `median 15.0 (2/3)`, or `> 100 (1/3)` where the median run did not.
    """
    never = sample.median is None or math.isinf(sample.median)
    return f"{f'> {end}' if never else f'median {number(sample.median, decimals)}'} ({sample.reached}/{sample.n})"


def comparison(compared: Comparison | None, decimals: int) -> list[str]:
    """The cells under COMPARISON."""
    if compared is None or not compared.n:
        return [""] * len(COMPARISON)
    low, high = (number(end, decimals, "+") for end in (compared.low, compared.high))
    return [
        number(compared.mean, decimals, "+"),
        f"[{low}, {high}]" if low else "",
        f"{compared.wins}/{compared.n}",
        p_value(compared.holm_p),
    ]


def p_value(p: float | None) -> str:
    return "" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def numbers(compared: Comparison | None, decimals: int) -> list[str]:
    """The fields under NUMBERS, for CSV."""
    if compared is None or not compared.n:
        return [""] * len(NUMBERS)
    return [
        *(number(each, decimals) for each in (compared.mean, compared.low, compared.high)),
        str(compared.n),
        str(compared.wins),
        *("" if p is None else f"{p:.6g}" for p in (compared.p, compared.holm_p)),
    ]
