"""metrics/ + plan/study.json -> plots/: figure4.{svg,png}, table1.{md,csv}, claims.{svg,png,md,csv}."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib import claims, claims_figure, drawing, figure4, table1
from lib.arms import arms_of, unequal_seeds
from lib.errors import BadInput, errors_exit
from lib.files import read_json, write_whole
from lib.metrics import RunMetrics, read_metrics
from lib.paper import data_name


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.report", description=__doc__).parse_args()
    with errors_exit("report"):
        study = read_study(Path("plan/study.json"))
        runs = collect(study, Path("metrics"))
        if unequal := unequal_seeds(arms_of(runs)):
            print(f"report: {unequal}")
        outputs = plots(study, runs)
        for name, content in outputs.items():
            write_whole(Path("plots", name), content)
        print(outputs["table1.md"].decode())
        print("report: in plots/: figure4.png, table1.md; of convergence and stability claims.png, claims.md")


def plots(study: dict[str, Any], runs: Sequence[RunMetrics]) -> dict[str, bytes]:
    """What the report shows, by file name."""
    dataset, caption, settings = runs[0].facts.dataset, circumstances(study, runs), study["report"]
    table, measures = table1.rows(runs), claims.rows(runs)
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
    }


def read_study(path: Path) -> dict[str, Any]:
    """What plan says of the study. Raises BadInput that names the file unless it is as plan writes it."""
    study = read_json(path)
    try:
        runs, report = study["runs"], study["report"]
        sound = (
            type(runs) is list
            and all(re.fullmatch(r"[a-z0-9_]+-[a-z0-9_]+-[0-9]+", run) for run in runs)
            and 0 < len(runs) == len(set(runs))
            and all(type(study[key]) is int and study[key] > 0 for key in ("epochs", "train_images"))
            and re.fullmatch(r"[a-z0-9_]+", study["preset"])
            and type(report["figure_dpi"]) is int
            and 50 <= report["figure_dpi"] <= 600
            and type(report["accuracy_from"]) in (int, float)
            and 0 <= report["accuracy_from"] < 1
        )
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise BadInput(f"{path} is not as plan writes it: `python -m stages.plan` writes it anew")
    return study


def collect(study: dict[str, Any], folder: Path) -> list[RunMetrics]:
    """The study's runs that are there; those that are missing, and files of other runs, are named in a line each."""
    foreign = sorted({path.stem for path in folder.glob("*.json")} - set(study["runs"]))
    missing = [run for run in study["runs"] if not (folder / f"{run}.json").exists()]
    if foreign:
        print(f"report: left out, since the study does not name them: {', '.join(foreign)}")
    if missing:
        print(f"report: missing, train them by `dvc repro`: {', '.join(missing)}")
    runs = read_runs(study, folder)
    if not runs:
        raise BadInput(f"{folder} holds no run of the study: train them by `dvc repro`")
    return runs


def read_runs(study: dict[str, Any], folder: Path) -> list[RunMetrics]:
    """The study's runs that are there, in its order. Raises BadInput for one that is damaged, or unlike the others."""
    paths = [folder / f"{run}.json" for run in study["runs"]]
    runs = {path: read_metrics(path) for path in paths if path.exists()}
    for path, run in runs.items():
        first, other = next(iter(runs.items()))
        if run.facts.epochs != study["epochs"]:
            raise BadInput(
                f"{path} is of a run of {run.facts.epochs} epochs, the study's have {study['epochs']}: "
                "train it anew by `dvc repro`"
            )
        if run.facts.dataset != other.facts.dataset:
            raise BadInput(
                f"{path} is of the {run.facts.dataset} data set, {first} of the {other.facts.dataset} one: train them "
                "on the same by `dvc repro`"
            )
    return list(runs.values())


def circumstances(study: dict[str, Any], runs: Sequence[RunMetrics]) -> str:
    """What the results are worth, in one line: data, scale, number of runs, software, device."""
    seeds = len({run.facts.seed for run in runs})
    devices = " and ".join(sorted({run.facts.device for run in runs}))
    torches = " and ".join(sorted({run.facts.torch for run in runs}))
    return (
        f"{data_name(runs[0].facts.dataset)} ({study['train_images']:,} training images), preset {study['preset']}, "
        f"{study['epochs']} epochs, n = {seeds} seed{'s' * (seeds > 1)}, {len(runs)} of {len(study['runs'])} runs, "
        f"PyTorch {torches}, {devices}"
    )


if __name__ == "__main__":
    main()
