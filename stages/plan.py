"""params.yaml -> plan/: one run card per run, and study.json for download and report."""

import argparse
import shutil
from pathlib import Path

from lib.errors import bad_input_exits
from lib.files import canonical_json, write_whole
from lib.plan import read_study


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.plan", description=__doc__).parse_args()
    with bad_input_exits("plan"):
        study = read_study(Path("params.yaml"))
        folder = Path("plan")
        shutil.rmtree(folder, ignore_errors=True)  # cards of runs that are no longer in the study
        for card in study.cards():
            card.write(folder / f"{card.name}.json")
        write_whole(folder / "study.json", canonical_json(study.summary()))
        print(f"plan: {len(study.cards())} runs of preset {study.preset}, {study.epochs} epochs each")


if __name__ == "__main__":
    main()
