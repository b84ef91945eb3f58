"""The paired comparison of two arms: what a difference over a few seeds is worth.

The runs of a seed see the images in the same order, hence pairs. A t-test on their differences keeps its
false-positive rate from two seeds on; a percentile bootstrap does not, and a permutation test cannot fall below 0.05
with fewer than six.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from lib.metrics import RunMetrics
from lib.stats.arms import Arm, with_baselines
from lib.stats.sample import Sample

LEVEL = 0.05  # of the tests; the intervals cover 1 - LEVEL
EQUAL = 1e-12  # less than any step of an accuracy, more than a difference's rounding error


@dataclasses.dataclass(frozen=True)
class Comparison:
    """An arm minus another over the seeds that both have finished. None where the data cannot say."""

    n: int  # such seeds
    wins: int  # of them, those in which the arm is better; a tie is no win
    mean: float | None = None  # of the differences
    sd: float | None = None  # of the differences, with n - 1 degrees of freedom
    low: float | None = None  # the 95 % t-interval of the mean, of this comparison alone
    high: float | None = None
    p: float | None = None  # of the two-sided paired t-test
    holm_p: float | None = None  # the same, corrected for all comparisons of the family
    family: int = 1  # how many these are

    @property
    def supported(self) -> bool:
        """Whether a difference, for better or worse, is significant after Holm's correction."""
        return self.below(LEVEL)

    def below(self, level: float) -> bool:
        return self.holm_p is not None and self.holm_p < level


def compare(values: Mapping[int, float], others: Mapping[int, float], higher_is_better: bool = True) -> Comparison:
    """Two arms' values by seed, over the seeds they share; Holm's p is left to `corrected`.

    If a value is infinite (never reached), only who was first is known: no mean, no test. If all differences are equal
    there is no interval and no test either: that indicates a coarse measure, not zero spread, and taken literally two
    seeds would give certainty.
    """
    pairs = [(value, others[seed]) for seed, value in values.items() if seed in others]
    differences = [one - other for one, other in pairs]  # infinite, or NaN (no win), where one is infinite
    wins = sum((each if higher_is_better else -each) > EQUAL for each in differences)
    if not np.isfinite(pairs).all() or not pairs:
        return Comparison(len(pairs), wins)
    sample = Sample(tuple(differences))
    if sample.n < 2:
        return Comparison(sample.n, wins, sample.mean)
    if max(differences) - min(differences) < EQUAL:
        return Comparison(sample.n, wins, sample.mean, sd=0.0)
    low, high, p = (float(each) for each in t_test(*np.transpose(pairs)))
    return Comparison(sample.n, wins, sample.mean, sample.sd, low, high, p)


def t_test(values: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The ends of the 95 % interval of the mean difference, and the two-sided p; pairs along the last axis."""
    result = ttest_rel(values, others, axis=-1)
    interval = result.confidence_interval(1 - LEVEL)
    return interval.low, interval.high, result.pvalue


def corrected(comparisons: Sequence[Comparison | None], planned: int = 0) -> list[Comparison | None]:
    """The comparisons with Holm's p (1979, Scand. J. Statist. 6:65), in their order; None stays None.

    `planned` is how many the study will have. Those with no p or no runs yet count with p = 1, so that the correction
    is no weaker while runs are still to come.
    """
    p_values = [1.0 if each.p is None else each.p for each in comparisons if each is not None]
    p_values += [1.0] * (planned - len(p_values))
    holm = iter(multipletests(p_values, LEVEL, method="holm")[1] if p_values else ())
    return [each if each is None else _with_holm(each, float(next(holm)), len(p_values)) for each in comparisons]


def _with_holm(comparison: Comparison, holm_p: float, family: int) -> Comparison:
    return dataclasses.replace(comparison, holm_p=None if comparison.p is None else holm_p, family=family)


def against_baselines(
    arms: Sequence[Arm], measure: Callable[[RunMetrics], float | None], higher_is_better: bool = True
) -> list[Comparison | None]:
    """Each arm compared with its network's baseline, uncorrected; None where there is no baseline to compare with."""
    return [
        compare(arm.measured(measure), baseline.measured(measure), higher_is_better) if baseline else None
        for arm, baseline in with_baselines(arms)
    ]


def several(comparisons: Sequence[Comparison | None]) -> bool:
    """Whether any is over more than one seed: with one, no difference can be distinguished from chance."""
    return any(each is not None and each.n > 1 for each in comparisons)
