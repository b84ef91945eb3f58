"""How many seeds it takes to detect a difference: the power of the paired t-test at the differences' spread."""

import dataclasses
from bisect import bisect_left
from collections.abc import Sequence

from scipy.stats import chi2, f, ncf

from lib.stats.paired import LEVEL, Comparison

POWER = 0.8  # the probability of detecting a real difference
MOST = 1000  # seeds; no study has more


@dataclasses.dataclass(frozen=True)
class Spread:
    """The standard deviation over seeds of a paired difference in accuracy (a fraction of 1), and its 95 % range."""

    sd: float
    low: float
    high: float


# Until there are two seeds: 0.4 points per run, 0.2 to 0.6. Standard deviations reported for ResNets on CIFAR-10 are
# 0.14 and 0.20 points (five runs each, 1001 layers; He et al. 2016, arXiv:1603.05027) and 0.54 (six runs, 56 layers;
# pytorch_resnet_cifar10, issue 18). That of the difference of two independent runs is sqrt(2) times as large. Those
# learning rates decayed, and the six were measured at their best epochs: a constant rate's last epoch may vary more.
ASSUMED = Spread(0.004 * 2**0.5, 0.002 * 2**0.5, 0.006 * 2**0.5)


def measured(comparisons: Sequence[tuple[str, Comparison]]) -> Spread | None:
    """The pooled spread of the comparisons, each given with its network; None where they show none.

    Variances are weighted by degrees of freedom. The range is that of a normal sample's standard deviation
    (chi-squared); a network's comparisons share its baseline and are not independent, so they count there as one.
    """
    several = [(network, each) for network, each in comparisons if each.n > 1 and each.sd is not None]
    freedom = sum(each.n - 1 for _, each in several)
    total = sum((each.n - 1) * (each.sd or 0) ** 2 for _, each in several)
    if not total:
        return None
    sd = (total / freedom) ** 0.5
    independent = sum(
        max(each.n - 1 for network, each in several if network == one) for one in {network for network, _ in several}
    )
    low, high = (sd * (independent / chi2.isf(tail, independent)) ** 0.5 for tail in (LEVEL / 2, 1 - LEVEL / 2))
    return Spread(sd, float(low), float(high))


def power(difference: float, sd: float, seeds: int, level: float = LEVEL) -> float:
    """The probability that a two-sided paired t-test over `seeds` seeds detects a real difference.

    By the square of Student's t, which is a noncentral F (Johnson, Kotz, Balakrishnan 1995, ch. 31): scipy's noncentral
    t, and with it statsmodels' TTestPower, gives NaN for large differences.
    """
    threshold = f.isf(level, 1, seeds - 1)
    return float(ncf.sf(threshold, 1, seeds - 1, seeds * (difference / sd) ** 2))


def seeds_needed(difference: float, sd: float, level: float = LEVEL) -> int | None:
    """The fewest seeds with POWER to detect the difference at that level; None if more than MOST."""
    counts = range(2, MOST + 1)
    place = bisect_left(counts, POWER, key=lambda seeds: power(difference, sd, seeds, level))
    return counts[place] if place < len(counts) else None
