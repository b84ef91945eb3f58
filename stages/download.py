"""The data set -> data/cifar10/, verified.

From the environment variable CIFAR10_SOURCE (a folder with the batches, an archive, or an https address of one), else
from the official address.
"""

import argparse
import os
from pathlib import Path

from lib import obtain
from lib.card import CURE
from lib.errors import BadInput, errors_exit
from lib.files import read_json

SYNTHETIC_NOTICE = """download: CIFAR-10 is out of reach: training on the built-in SYNTHETIC set instead.
download: its accuracies say nothing about CIFAR-10. For the real one, set CIFAR10_SOURCE, then
download: `make rehearsal` again, or `dvc repro -f -s download` (what does not change, DVC does not run again)."""


def main() -> None:
    argparse.ArgumentParser(prog="python -m stages.download", description=__doc__).parse_args()
    with errors_exit("download"):
        wanted = wanted_data_set(Path("plan/study.json"))
        root = Path(os.environ.get("DVC_ROOT", "."))  # where the user is, if an experiment runs in a temporary folder
        source = os.environ.get("CIFAR10_SOURCE") or None
        if source and "://" not in source:
            source = str(root / source)
        name = obtain.obtain(wanted, Path("data/cifar10"), source, root / "data" / "cifar-10-python.tar.gz")
        if name != wanted and name == "synthetic":
            print(SYNTHETIC_NOTICE)
        print(f"download: data/cifar10 holds the {name} data set, every file verified by its SHA-256")


def wanted_data_set(path: Path) -> str:
    """The data set that a study's file names. Raises BadInput that names the file."""
    study = read_json(path, CURE)
    wanted = study.get("dataset") if isinstance(study, dict) else None
    if wanted not in obtain.DATA_SETS:
        raise BadInput(f"{path} names no known data set: {CURE}")
    return wanted


if __name__ == "__main__":
    main()
