"""The study's arms: each a network in one ordering, with its runs by seed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from lib.errors import BadInput
from lib.metrics import RunFacts, RunMetrics

BASELINE = "baseline"


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm's common facts and its runs; unfinished runs count as missing."""

    facts: RunFacts  # of its first run
    runs: Mapping[int, RunMetrics]  # by seed

    @property
    def finished(self) -> dict[int, RunMetrics]:
        """The finished runs, by seed."""
        return {seed: run for seed, run in self.runs.items() if run.finished}

    @property
    def name(self) -> str:
        return f"{self.facts.network}-{self.facts.ordering}"

    def measured(self, measure: Callable[[RunMetrics], float | None]) -> dict[int, float]:
        """The measure of each finished run, by seed, without the runs for which it is None."""
        values = {seed: measure(run) for seed, run in self.finished.items()}
        return {seed: value for seed, value in values.items() if value is not None}


def arms_of(runs: Sequence[RunMetrics]) -> list[Arm]:
    """The arms, in order of first appearance among the runs.

    Raises BadInput where a seed occurs twice in an arm: the duplicate would pass for an independent run.
    """
    grouped: dict[tuple[str, str], dict[int, RunMetrics]] = {}
    for run in runs:
        arm = grouped.setdefault((run.facts.network, run.facts.ordering), {})
        if run.facts.seed in arm:
            raise BadInput(f"{run.name} occurs twice among the runs: each seed counts once, leave one out")
        arm[run.facts.seed] = run
    return [Arm(next(iter(arm.values())).facts, arm) for arm in grouped.values()]


def with_baselines(arms: Sequence[Arm]) -> list[tuple[Arm, Arm | None]]:
    """Each arm with its network's baseline; None for a baseline itself and where the network has none."""
    baselines = {arm.facts.network: arm for arm in arms if arm.facts.ordering == BASELINE}
    return [(arm, None if arm.facts.ordering == BASELINE else baselines.get(arm.facts.network)) for arm in arms]


def unequal_seeds(arms: Sequence[Arm]) -> str | None:
    """One line naming arms that lack seeds finished by another arm of their network; None if there are none."""
    lacking = []
    for arm in arms:
        network = [other for other in arms if other.facts.network == arm.facts.network]
        if missing := sorted({seed for other in network for seed in other.finished} - set(arm.finished)):
            lacking.append(f"{arm.name} lacks {', '.join(map(str, missing))}")
    if not lacking:
        return None
    return f"unequal seeds: {'; '.join(lacking)}; each comparison is over the seeds that both its arms have finished"
