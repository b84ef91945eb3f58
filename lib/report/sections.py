"""Table 1 and the claims as sections of the page."""

from collections.abc import Iterable, Sequence

from lib import table1
from lib.paper import data_name, split_of
from lib.report import cells, claims
from lib.report.page import Section, Table
from lib.stats.paired import Comparison, several

NOT_THE_PAPERS = "The paper’s values are set beside its own networks, of 110 and 164 layers on CIFAR-10: not these."
CLAIMS = "Faster and more stable?"
CLAIMED = (
    "With the IC layer the study sees “a faster convergence speed and better convergence limit” and “a more stable "
    "training performance” (Sec. 2.2). The limit is in Table 1; the other two, measured:"
)


def of_table1(rows: Sequence[table1.Row], dataset: str) -> Section:
    """Table 1, without columns that would be empty or mislead: comparisons of one seed, the paper's other networks."""
    frame, notes = table1.frame(rows, dataset), [table1.reading(rows)]
    comparisons = [row.to_baseline for row in rows]
    if not several(comparisons):  # one number minus another
        frame = frame.drop(columns=list(cells.COMPARISON))
    if all(row.paper is None for row in rows):
        frame, notes = frame.drop(columns=table1.PAPER), [*notes, NOT_THE_PAPERS]
    caption = (
        f"{split_of(dataset).capitalize()} accuracy on {data_name(dataset)} at the end of training, as a fraction of 1"
    )
    return Section("table1", "Table 1", [Table(caption, frame, 2, _supported(comparisons))], notes)


def of_claims(rows: Sequence[claims.Row]) -> Section:
    """The measures side by side; with two seeds also their comparisons, folded as there are many."""
    tables = [Table("Each measure: mean ± standard deviation over seeds", claims.overview(rows), 2)]
    if several([row.to_baseline for row in rows]):
        tables += [_comparisons([row for row in rows if row.measure is measure]) for measure in claims.MEASURES]
    return Section("claims", CLAIMS, tables, claims.reading(rows).split("\n\n"), CLAIMED)


def _comparisons(rows: Sequence[claims.Row]) -> Table:
    """One measure's differences from the baselines."""
    compared = [row for row in rows if row.to_baseline]
    frame = claims.frame(compared).drop(columns=["Claim", "Measure"])
    supported = _supported(row.to_baseline for row in compared)
    return Table(f"{rows[0].measure.title}: differences to the baselines", frame, 2, supported, folded=True)


def _supported(comparisons: Iterable[Comparison | None]) -> set[tuple[int, str]]:
    """The cells of differences significant after Holm's correction."""
    return {(at, cells.COMPARISON[0]) for at, each in enumerate(comparisons) if each and each.supported}
