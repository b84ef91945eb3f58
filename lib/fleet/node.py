"""A node of the fleet, from within: its folder, installed versions, the data, and training's environment."""

import contextlib
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lib.errors import BadInput
from lib.files import write_whole
from lib.machine.stopping import ENDS_WITH_PARENT

CODE = Path(__file__).parents[2]  # on a node, where Ray has put it
LEFT = 14 * 24 * 3600  # seconds after which unused folders are deleted


def versions() -> dict[str, str]:
    """The versions that must agree on all nodes; torch for another device (2.14.1+cpu) is the same torch."""
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for package in ("ray", "torch"):
        try:
            found[package] = importlib.metadata.version(package).split("+")[0]
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def environment(gpu: bool) -> dict[str, str]:
    """A training's environment: one thread, our code first, ending with this process, no GPU but one it was given.

    Ray hides none from a task that was given none.
    """
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")}
    paths = [str(CODE), *filter(None, [kept.get("PYTHONPATH")])]  # a `module load` may have put torch there
    ours = {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", ENDS_WITH_PARENT: "1"}
    return kept | ours | ({} if gpu else {"CUDA_VISIBLE_DEVICES": ""})


def home() -> Path:
    """This user's folder on this node, for all fleets: in TMPDIR, or the default for temporary files.

    Raises BadInput if others could have replaced it, or put something into it.
    """
    folder = Path(tempfile.gettempdir(), f"ic-fleet-{os.getuid()}")
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found, there = folder.lstat(), f"{folder} on {socket.gethostname()}"
    if found.st_uid != os.getuid():
        raise BadInput(f"{there} is another user's: set TMPDIR there to a folder of yours")
    if not stat.S_ISDIR(found.st_mode):
        raise BadInput(f"{there} is no folder of its own: delete it, or set TMPDIR there to a folder of yours")
    if found.st_mode & 0o077:
        raise BadInput(f"{there} is open to other users: delete it, or `chmod 700` it if what it holds is yours")
    return folder


@contextlib.contextmanager
def fresh_folder(root: Path) -> Iterator[Path]:
    """A folder for one task, deleted at the end; also deletes those that killed tasks have left.

    A lock marks live tasks, since process ids from containers, other users and other hosts mean nothing here. Where
    hosts share TMPDIR each deletes only its own, as locks may not work across hosts.
    """
    root.mkdir(exist_ok=True)
    host = socket.gethostname()
    with _alone(root / ".lock"):  # else one just created, and not yet locked, would be deleted
        for folder in root.glob("*/"):
            if folder.name.rpartition(".")[0] == host:
                _sweep(folder, unused_for=0)
        folder = Path(tempfile.mkdtemp(prefix=f"{host}.", dir=root))
        held = os.open(folder / ".lock", os.O_WRONLY | os.O_CREAT)
        fcntl.flock(held, fcntl.LOCK_EX)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def sweep(at_home: Path) -> None:
    """Delete what nobody holds and nobody has used for two weeks.

    That is data sets no longer wanted, and runs that resumed elsewhere after their task here had died.
    """
    for kind in ("checkpoints", "data", "runs"):
        for folder in (at_home / kind).glob("*/"):
            _sweep(folder, LEFT)


def _sweep(folder: Path, unused_for: float) -> None:
    """Delete a folder unless its lock is held (as by lib/lock.py) or it was used within `unused_for` seconds."""

    def unused() -> bool:
        return time.time() - folder.stat().st_mtime >= unused_for

    with contextlib.suppress(OSError):
        if unused():
            with (folder / ".lock").open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if unused():  # still: it may have been used before it was locked
                    shutil.rmtree(folder, ignore_errors=True)


def data_here(root: Path, wanted: Mapping[str, str], fetch: Callable[[], Mapping[str, bytes]]) -> Path:
    """The folder on this node that holds these files (path to SHA-256): fetched by the first task that needs them.

    Every file is verified each time; damaged ones are fetched again.
    """
    folder = root / hashlib.sha256(repr(sorted(wanted.items())).encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)  # in use: folders long unused are deleted
    with _alone(folder / ".lock"):
        missing = [name for name, sha256 in wanted.items() if _sha256(folder / name) != sha256]
        contents = fetch() if missing else {}
        for name in missing:
            if hashlib.sha256(contents[name]).hexdigest() != wanted[name]:
                raise BadInput(f"{name} was damaged on its way to {socket.gethostname()}: try again")
            write_whole(folder / name, contents[name])
    return folder


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for other tasks of this node that hold this lock."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
