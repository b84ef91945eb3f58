"""Projects in which stages are done already, for tests that run DVC for real: `pytest_plugins` of their modules."""

from pathlib import Path

import pytest

from tests.dvc_project import BASELINE, IC, Project


@pytest.fixture(scope="session")
def two_runs_done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Made once; tests get copies."""
    project = Project.new(tmp_path_factory.mktemp("two-runs-done") / "project")
    project.dvc("repro", f"train@{BASELINE}", f"train@{IC}")
    return project


@pytest.fixture(scope="session")
def all_done(two_runs_done: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The undisturbed one, committed. Made once; tests get copies."""
    project = two_runs_done.copy(tmp_path_factory.mktemp("all-done") / "project")
    project.dvc("repro")
    project.commit()
    return project


@pytest.fixture
def begun(two_runs_done: Project, tmp_path: Path) -> Project:
    """Two of three runs are done."""
    return two_runs_done.copy(tmp_path / "project")


@pytest.fixture
def finished(all_done: Project, tmp_path: Path) -> Project:
    """All is done and committed."""
    return all_done.copy(tmp_path / "project")
