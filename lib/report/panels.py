"""How runs make up Figure 4: a panel per network, a curve per ordering, over runs that may be averaged."""

import dataclasses
import string
from collections.abc import Sequence

from lib.metrics import RunMetrics
from lib.paper import data_name, model_name
from lib.stats.arms import arms_of

LEAST_HEIGHT = 0.05  # in accuracy, that each curve must rise above the axis's lower end; else all are shown whole
FEW_EPOCHS = 10  # up to this many are marked


@dataclasses.dataclass(frozen=True)
class Panel:
    """A network's runs, of all orderings and seeds."""

    letter: str
    network: str  # "ResNet 110"
    data: str  # "CIFAR-10"
    runs: tuple[RunMetrics, ...]

    @property
    def name(self) -> str:
        return f"({self.letter}) {self.network}"

    @property
    def title(self) -> str:
        return f"{self.name} on {self.data}"


def panels_of(runs: Sequence[RunMetrics]) -> list[Panel]:
    """The panels, in order of the networks' first appearance among the runs."""
    networks = dict.fromkeys(run.facts.network for run in runs)
    grouped = [tuple(run for run in runs if run.facts.network == network) for network in networks]
    return [_panel(string.ascii_lowercase[place % 26], group) for place, group in enumerate(grouped)]


def orderings_of(runs: Sequence[RunMetrics]) -> list[str]:
    """The orderings, in order of first appearance among the runs."""
    return list(dict.fromkeys(run.facts.ordering for run in runs))


def comparable(runs: Sequence[RunMetrics]) -> list[RunMetrics]:
    """The runs that one curve may average: an arm's finished ones, or if there are none, those under way.

    A mean would jump where a shorter run ends; hence runs under way are cut to the shortest of their arm.
    """
    shown: list[RunMetrics] = []
    for arm in arms_of(runs):
        shortest = min(len(run.history) for run in arm.runs.values())
        under_way = [dataclasses.replace(run, history=run.history[:shortest]) for run in arm.runs.values()]
        shown += arm.finished.values() or under_way
    return shown


def _panel(letter: str, runs: tuple[RunMetrics, ...]) -> Panel:
    facts = runs[0].facts
    return Panel(letter, f"{model_name(facts.block)} {facts.depth}", data_name(facts.dataset), runs)
