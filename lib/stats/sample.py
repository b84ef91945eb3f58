"""One number per seed: what a sample of runs says of its arm."""

import dataclasses
import math
import statistics


@dataclasses.dataclass(frozen=True)
class Sample:
    """Values by seed; infinite where a run never got there (it is then only known to come after its end)."""

    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def reached(self) -> int:
        """How many of them are finite."""
        return sum(map(math.isfinite, self.values))

    @property
    def censored(self) -> bool:
        return self.reached < self.n

    @property
    def mean(self) -> float | None:
        """None without values, and if one is infinite: a mean of the others would leave out the slowest."""
        return statistics.fmean(self.values) if self.values and not self.censored else None

    @property
    def sd(self) -> float | None:
        """The standard deviation with n - 1 degrees of freedom; None for fewer than two values or an infinite one."""
        return statistics.stdev(self.values) if self.n > 1 and not self.censored else None

    @property
    def median(self) -> float | None:
        """Of all values, infinite ones last: it needs no guess of how late they are. None without values."""
        return statistics.median(self.values) if self.values else None
