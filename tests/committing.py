"""Git repositories made for a test, whatever git's settings and variables are around it."""

import os
import subprocess
from pathlib import Path

FIRST, SECOND = "2021-07-03T23:30:00+02:00", "2022-01-02T01:00:00+09:00"
WHO = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(folder: Path, *arguments: str, date: str = FIRST) -> None:
    environment = {
        "PATH": os.environ["PATH"],
        **WHO,
        "GIT_COMMITTER_DATE": date,
        "GIT_AUTHOR_DATE": SECOND,
        "GIT_CONFIG_GLOBAL": "/dev/null",
    }
    command = ["git", "-C", str(folder), *arguments]
    subprocess.run(command, env=environment, check=True, capture_output=True)
