"""How many seeds it takes to see a difference of d points to the baseline, given the spread measured so far.

The spread is that of the finished runs in metrics/ that params.yaml names. Until two seeds of an ordering and its
baseline are finished, it is assumed, and the output says so. A point is 0.01 of test accuracy.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from lib import table1
from lib.errors import BadInput, errors_exit
from lib.plan import read_study
from lib.report import markdown
from lib.report.results import comparisons_of, read_so_far
from lib.stats.paired import LEVEL, Comparison
from lib.stats.power import ASSUMED, MOST, POWER, Spread, measured, seeds_needed
from lib.words import counted

POINTS = ("0.2", "0.5", "1", "2", "5")
PARAMS = Path("params.yaml")
NOT_MEASURED = (
    "ASSUMED, NOT MEASURED, after other ResNets on CIFAR-10, since no ordering has two finished seeds in common with\n"
    "its baseline and differences that vary (to measure it: dvc exp run -S 'seeds=[0,1]'). A training whose learning\n"
    "rate does not fall, as the study's, may well vary more"
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tools.power", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("points", nargs="*", metavar="d", help=f"differences in points (default: {' '.join(POINTS)})")
    arguments = parser.parse_args()
    with errors_exit("power"):
        differences = [points(text) for text in arguments.points or POINTS]
        study = read_study(PARAMS).summary()
        many = comparisons_of(study)
        if not many:
            raise BadInput(
                f"{PARAMS}: orderings: none of them is compared with a baseline: add baseline, or one beside it"
            )
        rows = table1.rows(read_so_far("power", study, Path("metrics")))
        comparisons = [(row.network, row.to_baseline) for row in rows if row.to_baseline]
        print(answer(differences, comparisons, many))


def points(text: str) -> float:
    """A difference in points, between 0 and 100. Raises BadInput."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 100:
        raise BadInput(f"{text} is not a difference in points: give numbers between 0 and 100, such as 0.5")
    return value


def answer(differences: Sequence[float], comparisons: Sequence[tuple[str, Comparison]], many: int) -> str:
    """The spread and its source, and a line per difference."""
    spread = measured(comparisons)
    told = source(comparisons) if spread else NOT_MEASURED
    spread = spread or ASSUMED
    sd, low, high = (100 * each for each in (spread.sd, spread.low, spread.high))
    table = pd.DataFrame(
        [[f"{each:g}", *(seeds(each / 100, spread, LEVEL / family) for family in (1, many))] for each in differences],
        columns=["Points", "Seeds for one comparison", f"Seeds for each of {many}, corrected"],
    )
    return (
        f"{told}:\nfrom seed to seed a difference to the baseline varies by {sd:.2f} points "
        f"({low:.2f} to {high:.2f}).\n\n{markdown.table(table, names=0)}\n"
        f"Seeds per arm for a chance of {POWER:.0%} to see the difference in a two-sided paired t-test at {LEVEL:g};\n"
        "in brackets, at the ends of the spread's range. Corrected: at Holm's strictest step.\n"
        "To train more seeds, name those too that are there: dvc exp run -S 'seeds=[0,1,2]'"
    )


def source(comparisons: Sequence[tuple[str, Comparison]]) -> str:
    """What the spread was measured on."""
    counts = sorted({each.n for _, each in comparisons if each.n > 1})
    several = sum(each.n > 1 for _, each in comparisons)
    span = " to ".join(map(str, sorted({counts[0], counts[-1]})))
    return f"Measured in {counted(several, 'comparison')} over {span} seeds, with its 95 % range"


def seeds(difference: float, spread: Spread, level: float) -> str:
    """The seeds needed at the spread and, in brackets where they differ, at the ends of its range."""
    middle, low, high = (
        f"> {MOST}" if count is None else str(count)
        for count in (seeds_needed(difference, sd, level) for sd in (spread.sd, spread.low, spread.high))
    )
    return f"{middle} ({low} to {high})" if low != high else middle


if __name__ == "__main__":
    main()
