"""A project's parameters and metrics as they are at a revision: a commit, a branch, or one of DVC's experiments."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lib.errors import BadInput


@contextlib.contextmanager
def at_revision(revision: str) -> Iterator[Path]:
    """A folder with that revision's params.yaml and metrics/, as far as it has them.

    Raises BadInput for a revision that is not there, and for what is read of it meanwhile names it as git does:
    `HEAD~1:params.yaml`.
    """
    from dvc.api import DVCFileSystem  # 2 s, for this alone
    from dvc.exceptions import DvcException
    from scmrepo.exceptions import SCMError

    with tempfile.TemporaryDirectory() as folder:
        try:
            if not revision:  # which DVC takes for the working tree
                raise SCMError("a name is missing")
            files = DVCFileSystem(rev=revision)
            names = ["params.yaml", *files.glob("metrics/*.json")]
            for name in filter(files.exists, names):
                path = Path(folder, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(files.read_bytes(name))
        except (DvcException, SCMError) as error:
            raise BadInput(
                f"{revision}: {error}: name a commit, a branch or an experiment (`dvc exp list` lists those)"
            ) from None
        try:
            yield Path(folder)
        except BadInput as error:
            raise BadInput(str(error).replace(f"{folder}/", f"{revision}:")) from None
