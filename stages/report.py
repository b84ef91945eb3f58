"""metrics/ + plan/study.json -> plots/: figure4.{svg,png}, table1.{md,csv}, claims.{svg,png,md,csv}, report.html."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import figure4, table1
from lib.errors import errors_exit
from lib.files import write_whole
from lib.metrics import RunMetrics
from lib.report import circumstances, claims, claims_figure, curves, drawing, sections
from lib.report.commit import last_commit
from lib.report.page import Page, to_html
from lib.report.results import collect, comparisons_of, read_study
from lib.stats.arms import arms_of, unequal_seeds

CODE = ("dvc.yaml", "stages", "lib")  # whose last commit the page names; parameters change with results


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.report", description=__doc__).parse_args()
    with errors_exit("report"):
        study = read_study(Path("plan/study.json"))
        runs = collect(study, Path("metrics"))
        if unequal := unequal_seeds(arms_of(runs)):
            print(f"report: {unequal}: train the others with `dvc repro`")
        outputs = plots(study, runs)
        for name, content in outputs.items():
            write_whole(Path("plots", name), content)
        print(outputs["table1.md"].decode())
        print("report: in plots/: figure4.png, table1.md; of convergence and stability claims.png, claims.md")
        print("report: all on one page, for a browser: plots/report.html")


def plots(study: dict[str, Any], runs: Sequence[RunMetrics]) -> dict[str, bytes]:
    """The report's files, by name."""
    dataset, caption, settings = runs[0].facts.dataset, circumstances.in_a_line(study, runs), study["report"]
    planned = comparisons_of(study)
    table, measures = table1.rows(runs, planned), claims.rows(runs, planned)
    figures = {
        "figure4": figure4.draw(runs, caption, settings["accuracy_from"]),
        "claims": claims_figure.draw(measures, caption),
    }
    return {
        **{
            f"{name}.{kind}": drawing.rendered(figure, kind, settings["figure_dpi"])
            for name, figure in figures.items()
            for kind in ("svg", "png")
        },
        "table1.md": table1.to_markdown(table, dataset, f"Table 1. {caption}").encode(),
        "table1.csv": table1.to_csv(table, dataset).encode(),
        "claims.md": claims.to_markdown(measures, f"Convergence and stability. {caption}").encode(),
        "claims.csv": claims.to_csv(measures).encode(),
        "report.html": to_html(page(study, runs, table, measures)).encode(),
    }


def page(
    study: dict[str, Any], runs: Sequence[RunMetrics], table: Sequence[table1.Row], measures: Sequence[claims.Row]
) -> Page:
    """All of it on one page, with what was run."""
    return Page(
        circumstances.in_a_line(study, runs),
        circumstances.warnings(study, runs),
        curves.figure4(runs, table, study["report"]["accuracy_from"]),
        [sections.of_table1(table, runs[0].facts.dataset), sections.of_claims(measures)],
        circumstances.in_full(study, runs, last_commit(CODE)),
    )


if __name__ == "__main__":
    main()
