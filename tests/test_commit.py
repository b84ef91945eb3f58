import pytest
from committing import SECOND, git

from lib.report.commit import last_commit


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Two commits, of which the first alone is of code."""
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/a b.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "code")
    (tmp_path / "metrics.json").write_text("{}")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "results", date=SECOND)
    return tmp_path


def test_it_is_the_last_to_change_the_files_asked_for(repository):
    assert last_commit(["lib"]).date == "2021-07-03", "the committer's day, at the committer's place"
    assert last_commit(["lib", "metrics.json"]).date == "2022-01-02"
    assert last_commit(["lib"]).changed == ()


def test_it_does_not_depend_on_other_commits_or_on_other_files(repository):
    before = last_commit(["lib"])
    (repository / "metrics.json").write_text("[]")
    assert last_commit(["lib"]) == before
    git(repository, "commit", "-am", "more results", date=SECOND)
    assert last_commit(["lib"]) == before


def test_what_is_not_in_it_is_named(repository):
    (repository / "lib/a b.py").write_text("2")
    (repository / "lib/new.py").write_text("3")
    told = last_commit(["lib"])
    assert told.changed == ("lib/a b.py", "lib/new.py")
    assert str(told) == f"2021-07-03 ({told.sha}, and changes since to lib/a b.py, lib/new.py)"
    (repository / "lib/third.py").write_text("3")
    assert str(last_commit(["lib"])).endswith("changes since to lib/a b.py, lib/new.py and 1 more)")


def test_none_is_known_without_git_a_repository_or_a_commit(repository, tmp_path_factory, monkeypatch):
    assert last_commit(["elsewhere"]) is None
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        assert last_commit(["lib"]) is None
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
    monkeypatch.chdir(tmp_path_factory.mktemp("no-repository"))
    assert last_commit(["."]) is None


def test_none_is_known_of_a_history_that_is_cut_off(repository, tmp_path_factory, monkeypatch):
    shallow = tmp_path_factory.mktemp("shallow") / "clone"
    git(repository, "clone", "--depth=1", f"file://{repository}", str(shallow))
    monkeypatch.chdir(shallow)
    assert last_commit(["lib"]) is None
