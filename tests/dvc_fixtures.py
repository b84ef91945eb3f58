"""Projects in which stages are done already, for tests that run DVC for real: `pytest_plugins` of their modules."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dvc_project import BASELINE, IC, Project


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Project:
    """The project that `make` makes in a folder: by one process of a test session, for all."""
    root = factory.getbasetemp()
    place = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / name
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "whole").exists():
            shutil.rmtree(place / "project", ignore_errors=True)  # of one that failed
            make(place / "project")
            (place / "whole").touch()
    return Project(place / "project")


@pytest.fixture(scope="session")
def two_runs_done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Tests get copies."""

    def make(folder: Path) -> None:
        folder.mkdir()
        Project.new(folder).dvc("repro", f"train@{BASELINE}", f"train@{IC}")

    return made_once(tmp_path_factory, "two-runs-done", make)


@pytest.fixture(scope="session")
def all_done(two_runs_done: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The undisturbed one, committed. Tests get copies."""

    def make(folder: Path) -> None:
        project = two_runs_done.copy(folder)
        project.dvc("repro")
        project.commit()

    return made_once(tmp_path_factory, "all-done", make)


@pytest.fixture
def begun(two_runs_done: Project, tmp_path: Path) -> Project:
    """Two of three runs are done."""
    return two_runs_done.copy(tmp_path / "project")


@pytest.fixture
def finished(all_done: Project, tmp_path: Path) -> Project:
    """All is done and committed."""
    return all_done.copy(tmp_path / "project")
