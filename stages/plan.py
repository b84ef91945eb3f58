"""params.yaml -> plan/: one run card per run, and study.json for download and report."""

import argparse
import contextlib
from pathlib import Path

from lib.card import RunName
from lib.errors import errors_exit
from lib.files import canonical_json, failures_named, write_whole
from lib.plan import read_study
from lib.words import counted


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.plan", description=__doc__).parse_args()
    with errors_exit("plan"):
        study = read_study(Path("params.yaml"))
        folder = Path("plan")
        for card in study.cards():
            card.write(folder / f"{card.name}.json")
        write_whole(folder / "study.json", canonical_json(study.summary()))
        named = {"study.json", *(f"{card.name}.json" for card in study.cards())}
        with failures_named(folder):
            for path in folder.iterdir():
                if path.name not in named and is_made_here(path):
                    path.unlink()
        runs = counted(len(study.cards()), "run")
        sets = f" (which itself sets {', '.join(study.set_by_preset)})" if study.set_by_preset else ""
        print(f"plan: {runs} of preset {study.preset}{sets}, of {counted(study.epochs, 'epoch')} each")
        if "baseline" not in study.orderings:
            print("plan: baseline is not among the orderings: there is nothing to compare them with, and no statistics")


def is_made_here(path: Path) -> bool:
    """Whether it is named like the card of a run, perhaps of an earlier study, or like what a crash left of a file."""
    if path.match(".*.tmp"):
        return True
    with contextlib.suppress(ValueError):
        RunName.parse(path.stem)
        return path.suffix == ".json" and path.is_file()
    return False


if __name__ == "__main__":
    main()
