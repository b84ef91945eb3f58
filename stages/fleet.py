"""plan/, data/cifar10/ -> checkpoints/ of every stale run, trained on a Ray cluster; then `dvc repro` collects them.

Asks DVC which train stages are stale, and trains each as `python -m stages.train` on a node with a free core, or on a
GPU, several side by side. Code, cards and data are sent; no disk is shared. Every checkpoint is sent back as it is
made: whatever dies resumes from there, and so does this command when it is stopped or killed and run again.
Exit status: 0 all written, 1 or 2 something to fix, 75 try again, 130 or 143 stopped by a signal. Runs that failed are
named at the end, and the others are collected.
"""

import argparse
import contextlib
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lib import cifar10
from lib.card import RunCard
from lib.errors import BadInput, StageError, Stopped, errors_exit, status_of
from lib.fleet import dvc, node
from lib.fleet.driver import Fleet
from lib.fleet.members import Member, held
from lib.machine.stopping import Stop
from lib.runs import on_cores
from stages.train import ROOT, checkpoints_of

DATA = Path("data/cifar10")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stages.fleet", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--address",
        default=os.environ.get("RAY_ADDRESS") or "local",
        help="of a running Ray cluster: host:port, ray://host:port, or auto for the one that this machine belongs to; "
        "without it, and without RAY_ADDRESS, this machine alone is taken: all its GPUs, or its cores",
    )
    address = parser.parse_args().address
    stop = Stop("fleet")
    with errors_exit("fleet"):
        stop.listen()
        require_installed()
        dvc.run(stop.check, "repro", "plan", "download")
        runs = dvc.stale(stop.check, "train")
        failed = train(runs, address, stop)
        if failed:
            collect([run for run in runs if run not in failed], stop)
            raise failure(failed, len(runs))
        dvc.run(stop.check, "repro")


def collect(runs: Sequence[str], stop: Stop) -> None:
    """Let DVC collect these runs alone; if it cannot, say so and go on: what has failed must still be named."""
    try:
        if runs:
            dvc.run(stop.check, "repro", "--single-item", *(f"train@{run}" for run in runs))
    except Stopped:
        raise
    except StageError as error:
        print(f"fleet: {error}", file=sys.stderr, flush=True)


def require_installed() -> None:
    """Raise BadInput that names the fix unless DVC, and what the fleet needs on top, are here."""
    for package in ("dvc", "ray", "rich"):
        if importlib.util.find_spec(package) is None:
            raise BadInput(f"{package} is not installed here: `make fleet` installs it (requirements-fleet.txt)")


def train(runs: Sequence[str], address: str, stop: Stop) -> dict[str, StageError]:
    """Train what is left of these runs on a cluster; returns why each failed that did, by name."""
    files = cifar10.verified_files(DATA)
    members, failed = members_of(runs, files.sha256)
    with held(members):
        if not all(member.over for member in members):
            train_on(address, members, files.contents, stop)
    return failed | {member.name: member.fault for member in members if member.fault}


def members_of(runs: Sequence[str], data_sha256: str) -> tuple[list[Member], dict[str, StageError]]:
    """The runs as members, and the errors of those whose card is invalid."""
    members, failed = list[Member](), dict[str, StageError]()
    for run in runs:
        path = Path("plan", f"{run}.json")
        try:
            card = RunCard.read(path)
            members.append(Member(card, checkpoints_of(card, data_sha256), path.read_bytes()))
        except BadInput as error:
            failed[run] = error
    return members, failed


def train_on(address: str, members: Sequence[Member], files: dict[str, bytes], stop: Stop) -> None:
    """Train members on the cluster at that address, with a table that shows their progress."""
    from lib.fleet.cluster import Cluster  # Ray and rich may be missing: require_installed() says so
    from lib.fleet.table import FleetTable

    data = {f"{cifar10.FOLDER}/{name}": content for name, content in files.items()}
    if (DATA / cifar10.MANIFEST).exists():
        data[cifar10.MANIFEST] = (DATA / cifar10.MANIFEST).read_bytes()
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    with code_that_trains() as code, contextlib.closing(Cluster(address, on_cores(), code, data, digests)) as cluster:
        with FleetTable(members) as table:

            def check() -> None:
                stop.check()
                table.look()

            Fleet(members, cluster, node.versions(), table).train(check)


@contextlib.contextmanager
def code_that_trains() -> Iterator[Path]:
    """A folder with the code a node needs, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lib/**/*.py", "stages/__init__.py", "stages/train.py"):
            for path in ROOT.glob(name):
                copy = Path(folder, path.relative_to(ROOT))
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        yield Path(folder)


def failure(failed: dict[str, StageError], of: int) -> StageError:
    """Name each run that failed, and why; returns the error to end with."""
    for run, error in failed.items():
        print(f"fleet: {run}: {error}", file=sys.stderr, flush=True)
    others = ", the others are trained" * (len(failed) < of)
    return StageError(
        f"{len(failed)} of {of} runs failed{others}: {', '.join(failed)}. "
        "Fix them, then run the same command again: it draws the report once all runs are there",
        status_of(error.status for error in failed.values()),
    )


if __name__ == "__main__":
    main()
