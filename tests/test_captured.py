"""lib/gpu/captured.py where no GPU is needed: what happens after a capture has failed."""

import multiprocessing
import os
import sys

import pytest

from lib.gpu import captured


def test_after_a_failed_capture_the_same_command_starts_anew_without_captures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[tuple[str, list[str]]] = []
    monkeypatch.setenv(captured.SWITCH, "1")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "stages.train", "plan/a.json"])
    monkeypatch.setattr(os, "execv", lambda program, arguments: started.append((program, arguments)))
    captured._restart_without(RuntimeError("CUDA error:\n  operation not permitted"))
    assert started == [(sys.executable, [sys.executable, "-m", "stages.train", "plan/a.json"])]
    assert not captured.wanted()  # else it would start anew for ever
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: capturing a step failed (CUDA error: operation not permitted); training goes on")


def test_in_a_child_of_a_benchmark_a_failed_capture_is_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "a parent")
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started anew"))
    with pytest.raises(RuntimeError, match="not permitted"):
        captured._restart_without(RuntimeError("operation not permitted"))
