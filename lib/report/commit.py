"""The last commit that changed given files: the provenance of what was made from them."""

import dataclasses
from collections.abc import Sequence

from lib import git


@dataclasses.dataclass(frozen=True)
class Commit:
    """A commit, and the files with uncommitted changes."""

    sha: str  # the first ten digits
    date: str  # the committer's, as 2021-07-03
    changed: tuple[str, ...]  # files that differ from HEAD's, or are untracked

    def __str__(self) -> str:
        more = len(self.changed) - 2
        files = ", ".join(self.changed[:2]) + (f" and {more} more" if more > 0 else "")
        return f"{self.date} ({self.sha}" + (f", and changes since to {files})" if files else ")")


def last_commit(paths: Sequence[str]) -> Commit | None:
    """The last commit that changed any of the files or folders, given relative to the working directory.

    It depends on their history and content alone: a commit that does not touch them changes nothing here.
    None where it cannot be known: no git, no repository, no such commit yet, or a shallow clone, whose first commit
    appears to have changed everything.
    """
    shallow = git.text("rev-parse", "--is-shallow-repository")
    told = git.text("-c", "log.showSignature=false", "log", "-1", "--format=%H %cs", "--", *paths)
    status = git.text("status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *paths)
    if shallow is None or shallow.strip() != "false" or not told or status is None:
        return None
    sha, date = told.split()
    return Commit(sha[:10], date, tuple(entry[3:] for entry in status.split("\0") if entry))
