"""DVC as a user would run it: commands with their output shown, and which stages are stale."""

import json
import subprocess
import sys
import time
from collections.abc import Callable

from lib.errors import StageError

DVC = [sys.executable, "-m", "dvc"]


def run(check: Callable[[], None], *arguments: str) -> None:
    """Run `dvc <arguments>`. `check` is called meanwhile, and may raise to end it. Raises StageError if DVC fails."""
    process = subprocess.Popen([*DVC, *arguments])
    try:
        while process.poll() is None:
            time.sleep(0.1)
            check()
    finally:
        process.terminate()
        process.wait()
    check()  # a Ctrl-C ends both
    if process.returncode:
        raise StageError(f"`dvc {' '.join(arguments)}` ended with status {process.returncode}; it said why above")


def stale(group: str) -> list[str]:
    """The keys ("resnet110-baseline-0") of a matrix stage's stages that do not have their results yet.

    Raises StageError if DVC cannot tell.
    """
    asked = subprocess.run([*DVC, "status", group, "--json"], stdout=subprocess.PIPE, text=True)
    try:
        stages = json.loads(asked.stdout)
    except ValueError:
        raise StageError(f"`dvc status {group}` ended with status {asked.returncode}; it said why above") from None
    return [stage.removeprefix(f"{group}@") for stage in stages if stage.startswith(f"{group}@")]
