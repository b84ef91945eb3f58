"""benchmarks/records/*.json, benchmarks/accuracy.json -> tables in README.md and docs/speed.md, between comments."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from benchmarks import trials
from benchmarks.record import FOLDER, Race, Record, Result, Spread
from lib.errors import BadInput, errors_exit
from lib.files import write_whole
from lib.report import cells, markdown
from lib.words import counted

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- benchmarks: made by `python -m benchmarks.table` -->", "<!-- benchmarks: end -->"


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.table", description=__doc__).parse_args()
    with errors_exit("benchmarks"):
        for page, middle in pages().items():
            write_whole(page, filled(page.read_text(encoding="utf-8"), middle, page).encode())


def pages() -> dict[Path, str]:
    """What belongs between the two comments, by page: each device's speeds, or all that was measured."""
    of_devices = records(FOLDER)
    equal = learned(trials.Trials.read(trials.RECORD)) if trials.RECORD.exists() else ""
    return {
        ROOT / "README.md": "\n".join(overview(record) for record in of_devices if record.races),
        ROOT / "docs" / "speed.md": tables(of_devices) + equal,
    }


def records(folder: Path) -> list[Record]:
    return [Record.read(path) for path in sorted(folder.glob("*.json"))]


def filled(text: str, middle: str, page: Path) -> str:
    """The page's text with `middle` between the two comments. Raises BadInput if they are missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BadInput(f"{page} has no place for the tables: put {BEGIN} and {END} where they belong")
    return f"{before}{BEGIN}\n{middle}{END}{after}"


def overview(record: Record) -> str:
    """What the engine does on a device, beside the reference loops, and the conditions it was measured under."""
    compared, references, ratios = compared_with(record.races)
    rows = [
        [race.network, race.ordering, rate(race, compared), *beside]
        for race, beside in zip(record.races, ratios, strict=True)
    ]
    header = ["network", "ordering", titled(record)[compared], *(f"times the {name}" for name in references)]
    return f"**{record.device}**{conditions(record.races)}\n\n{table(header, rows, names=2)}\n"


def compared_with(races: Sequence[Race]) -> tuple[str, list[str], list[list[str]]]:
    """Who is compared, with which reference loops, and in each race how many times as fast as each of them it is.

    It is the last contender that every race has: one that failed in a race is missing there.
    """
    of_each = [[result.contender for result in race.results] for race in races]
    every = names(name for of in of_each for name in of)
    compared = ([name for name in every if all(name in of for of in of_each)] or every)[-1]
    references = names(name for race in races for result in race.results for name in result.times_faster)
    rows = []
    for race in races:
        faster = result.times_faster if (result := result_of(race, compared)) else {}
        rows.append([spread(faster[name]) if name in faster else "–" for name in references])
    return compared, references, rows


def result_of(race: Race, contender: str) -> Result | None:
    return next((result for result in race.results if result.contender == contender), None)


def rate(race: Race, contender: str) -> str:
    """A contender's training images per second in a race."""
    result = result_of(race, contender)
    return spread(result.images_per_second) if result else "–"


def tables(all_records: Iterable[Record]) -> str:
    """The tables of all devices, in Markdown."""
    return "\n".join(device_tables(record) for record in all_records)


def device_tables(record: Record) -> str:
    parts = [f"**{record.device}**{conditions([*record.races, *record.scale])}", ceilings(record)]
    if record.races:
        parts += [speeds(record), folded("Where a step's time goes; an epoch; memory", times(record.races))]
    if record.scale:
        parts.append(curve(record.scale))
    return "\n\n".join(parts) + "\n"


def folded(title: str, content: str) -> str:
    """Shown when its title is clicked."""
    return f"<details><summary>{title}</summary>\n\n{content}\n\n</details>"


def conditions(measured: Sequence[Race | trials.Trials]) -> str:
    """The conditions it was measured under."""
    if not measured:
        return ""
    all_of = [each.circumstances for each in measured]
    loads = [load for each in all_of for load in (each.load_before, each.load_after) if load is not None]
    versions = dict.fromkeys(f"PyTorch {each.torch}, {each.dataset}, commit {each.commit}" for each in all_of)
    return f": {'; '.join(versions)}; load {' to '.join(map(str, sorted({min(loads), max(loads)})))}"


def ceilings(record: Record) -> str:
    products = (f"{rate / 1e9:,.0f} GFLOP/s in {name}" for name, rate in record.ceilings.flop_per_second.items())
    copied = record.ceilings.copied_bytes_per_second / 1e9
    return f"Ceilings measured there: matrix products {', '.join(products)}; copying {copied:,.0f} GB/s."


def speeds(record: Record) -> str:
    """Training images per second of each contender, and how one compares."""
    races, titles = record.races, titled(record)
    compared, references, ratios = compared_with(races)
    rows = []
    for race, beside in zip(races, ratios, strict=True):
        rates = [rate(race, name) for name in titles]
        share = of_roofline(record, race, result) if (result := result_of(race, compared)) else "–"
        rows.append([race.network, race.ordering, *rates, *beside, share])
    header = ["network", "ordering", *titles.values(), *(f"{compared} / {name}" for name in references)]
    return table([*header, f"{compared}: of roofline"], rows, names=2)


def of_roofline(record: Record, race: Race, result: Result) -> str:
    return f"{record.ceilings.share(race.work, result.precision, result.images_per_second.median):.0%}"


def names(all_of: Iterable[str]) -> list[str]:
    """Each once, in order of appearance."""
    return list(dict.fromkeys(all_of))


def times(races: Sequence[Race]) -> str:
    """Where a step's time goes, how long an epoch takes, and how much memory."""
    parts = ["forward", "backward", "optimizer", "data", "other"]
    rows = [
        [
            race.network,
            race.ordering,
            result.contender,
            *(f"{result.seconds_per_step[part] * 1e3:,.1f}" if result.seconds_per_step else "–" for part in parts),
            f"{result.data_share:.2%}" if result.data_share is not None else "–",
            f"{result.epoch_seconds:,.0f} s",
            f"{result.evaluation_share:.1%}",
            f"{result.peak_bytes / 1e9:.2f} GB",
        ]
        for race in races
        for result in race.results
    ]
    return table(
        ["network", "ordering", "who", *(f"{part}, ms" for part in parts), "data", "epoch", "evaluation", "memory"],
        rows,
        names=3,
    )


def curve(races: Sequence[Race]) -> str:
    """Time and memory against depth and the number of runs side by side."""
    rows = [
        [
            race.network,
            str(result.side_by_side),
            f"{result.epoch_seconds:,.0f} s",
            f"{result.epoch_seconds / result.side_by_side:,.0f} s",
            f"{result.peak_bytes / 1e9:.2f} GB",
        ]
        for race in races
        for result in race.results
    ]
    return table(["network", "runs side by side", "an epoch of all", "per run", "memory"], rows, names=1)


def learned(record: trials.Trials) -> str:
    """How well networks learn on each path; differences are paired by seed."""
    rows = [
        [
            each.network,
            each.path,
            str(each.accuracy.n),
            cells.mean_and_sd(each.accuracy, 4),
            *cells.comparison(each.accuracy_difference, 4)[:2],
            *cells.comparison(each.loss_difference, 4)[:2],
        ]
        for each in trials.comparisons(record)
    ]
    where = f"{counted(record.epochs, 'epoch')} of {record.images:,} images on {record.device}{conditions([record])}"
    head = ["network", "path", "seeds", "test accuracy", "difference", "95 % interval"]
    head += ["difference in training loss", "95 % interval"]
    return f"\nDo the quick paths learn as well? The last of {where}; paired by seed.\n\n{table(head, rows, names=2)}\n"


def titled(record: Record) -> dict[str, str]:
    """A column's title for each contender: on a CPU with its processes, and threads in each."""
    results = {each.contender: each for race in record.races for each in race.results}
    if not record.device.startswith("CPU"):
        return {name: name for name in results}
    return {name: f"{name}, {each.processes} x {counted(each.threads, 'thread')}" for name, each in results.items()}


def spread(of: Spread) -> str:
    """The median, minimum and maximum; three digits are more than the noise supports."""
    return f"{digits(of.median)} ({digits(of.least)}–{digits(of.most)})"


def digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], names: int) -> str:
    return markdown.table(pd.DataFrame(rows, columns=list(header)), names=names).rstrip("\n")


if __name__ == "__main__":
    main()
