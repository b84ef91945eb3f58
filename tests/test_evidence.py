"""The evidence that is told: what the kept metrics come to, by the very commands that stand beside it."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from lib.results import collect, read_study
from tools import compare

ROOT = Path(__file__).parents[1]
PILOT = ROOT / "docs" / "pilot"
COMPARED = sorted(PILOT.glob("*/compared.md"))
KEPT = sorted(path.parent for path in PILOT.glob("*/study.json"))


@pytest.mark.parametrize("path", COMPARED, ids=lambda path: path.parent.name)
def test_the_command_named_prints_what_stands_below_it(path, monkeypatch, capsys):
    first, _, printed = path.read_text().partition("\n\n")
    (command,) = re.findall(r"`python -m tools\.compare (.*)`", first)
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["compare", *shlex.split(command)])
    compare.main()
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize("folder", KEPT, ids=lambda folder: folder.name)
def test_a_kept_study_has_all_its_runs_and_no_other(folder, capsys):
    study = read_study(folder / "study.json")
    runs = collect(study, folder / "metrics")
    assert capsys.readouterr().out == ""
    assert [run.name for run in runs if run.finished] == study["runs"]


def rows_of(path: Path) -> set[str]:
    """The rows of a page's tables that hold an interval, without padding."""
    lines = [re.sub(" +", " ", line) for line in path.read_text().splitlines() if line.startswith("|")]
    return {line for line in lines if re.search(r"\[[+-]0\.\d+, [+-]0\.\d+\]", line)}


def test_every_comparison_that_is_shown_is_one_that_was_printed():
    printed = set().union(*map(rows_of, [*COMPARED, *PILOT.glob("*/table1.md")]))
    assert set() < rows_of(ROOT / "docs" / "results.md") <= printed
