"""A project's parameters and metrics as they are at a revision: a commit, a branch, or one of DVC's experiments."""

import contextlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lib import git
from lib.errors import BadInput

WHAT_TO_NAME = "name a commit, a branch, or an experiment, as `dvc exp list --all-commits` lists them"


@contextlib.contextmanager
def at_revision(revision: str) -> Iterator[Path]:
    """A folder with params.yaml and metrics/ as the working directory has them at that revision; both are in git.

    Raises BadInput where there is no such revision, or it lacks them. In a BadInput raised meanwhile, files of the
    folder are named by the revision: HEAD:metrics/resnet110-baseline-0.json.
    """
    commit = _commit(revision)
    packed = git.answer("archive", "--format=tar", commit, "params.yaml", "metrics")
    if packed is None:
        raise BadInput(f"{revision} has no params.yaml and metrics/ in this folder: {WHAT_TO_NAME}")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in filter(tarfile.TarInfo.isfile, archive):
                path = Path(folder, member.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr]  # it is a file
        try:
            yield Path(folder)
        except BadInput as error:
            raise BadInput(str(error).replace(f"{folder}/", f"{revision}:")) from None


def _commit(revision: str) -> str:
    """The hash of the commit that git or DVC calls so; DVC keeps experiments at refs/exps/ab/cd.../name.

    Raises BadInput.
    """
    if named := git.text("rev-parse", "--verify", "--quiet", "--end-of-options", revision):
        sha = named.split()[-1]  # some gits echo the option
        if commit := git.text("rev-parse", "--verify", "--quiet", f"{sha}^{{commit}}"):  # in :/words it would be a word
            return commit.strip()
    kept = (git.text("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or "").splitlines()
    found = {commit for commit, ref in map(str.split, kept) if ref.split("/")[4:] == [revision]}
    if len(found) != 1:
        raise BadInput(f"{revision!r} is {'more than one' if found else 'no'} revision here: {WHAT_TO_NAME}")
    return found.pop()
