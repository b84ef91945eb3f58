"""Addresses that lead to no Ray cluster: each ends in one line with the cure, before anything has begun."""

import importlib.util
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from ray import exceptions

from lib.errors import BadInput, Stopped, TryAgain
from lib.fleet import cluster
from stages import fleet

REFUSED = "nothing answers (Connection refused): is the head node up"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_port_at_which_nobody_listens_ends_in_one_line(scheme: str) -> None:
    with socket.socket() as bound:  # so that nobody else takes the port, and deaf
        bound.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(BadInput) as refused:
            cluster.require_answer(address)
    assert str(refused.value).startswith(f"--address {address}: {REFUSED}")


@pytest.mark.parametrize(
    "address, says",
    [
        ("gpu..box:6379", "nothing answers ("),
        ("gpu-box", "expected host:port, ray://host:port or auto"),
        ("127.0.0.1:port", "expected host:port, ray://host:port or auto"),
        ("http://127.0.0.1:99999", "expected host:port, ray://host:port or auto"),
    ],
)
def test_an_address_that_nothing_answers_at_ends_in_one_line(address: str, says: str) -> None:
    with pytest.raises(BadInput) as refused:
        cluster.require_answer(address)
    assert str(refused.value).startswith(f"--address {address}: {says}")


def test_without_a_cluster_here_auto_says_what_makes_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))  # where Ray would note the cluster it has started
    with pytest.raises(BadInput, match=r"^--address auto: no Ray cluster can be reached \(.*`ray start --head`"):
        cluster.connect("auto", 1, tmp_path)


@pytest.mark.parametrize(
    "text, says",
    [
        (
            "Version mismatch: The cluster was started with:\n    Ray: 2.1.0\n    Python: 3.12.1\n",
            "Ray and Python must be the same there and here (Version mismatch: The cluster was started with: Ray",
        ),
        ("RPC error: InvalidAuthToken: Authentication token is missing", "it wants a token: RAY_AUTH_MODE=token"),
        ("Failed to connect to Ray cluster", "no Ray cluster can be reached (Failed to connect to Ray cluster)"),
    ],
)
def test_what_ray_says_at_length_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, says: str
) -> None:
    said = refusal(monkeypatch, tmp_path, "auto", text)
    assert said.startswith(f"--address auto: {says}") and "\n" not in said


@pytest.mark.parametrize(
    ("address", "text", "cure"),
    [
        (
            "local",
            "validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes",
            "RAY_TMPDIR to a short",
        ),
        ("local", "something of Ray's own", "Ray could not start here (something of Ray's own)"),
        (
            "auto",
            "No node info found matching attributes",
            "make it one by `ray start --address=...` here, or give ray:",
        ),
    ],
)
def test_the_cure_is_that_of_what_was_asked_for(
    address: str, text: str, cure: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said = refusal(monkeypatch, tmp_path, address, text)
    assert cure in said and "leave --address away" not in said


def refusal(monkeypatch: pytest.MonkeyPatch, folder: Path, address: str, text: str) -> str:
    """What is said where Ray says this text."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(cluster.ray, "init", refuse)
    with pytest.raises(BadInput) as refused:
        cluster.connect(address, 1, folder)
    return str(refused.value)


@pytest.mark.parametrize(
    ("avoid", "gpu", "kept_from"),
    [([], False, None), (["a"], False, "!in(a)"), (["a"], True, None), (["a", "b"], False, None)],
)
def test_a_task_is_kept_from_the_nodes_to_avoid_if_another_could_take_it(
    avoid: list[str], gpu: bool, kept_from: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`a` has CPUs and a GPU, `b` has CPUs; the head has none, and `c` has died."""
    has = {"a": {"CPU": 2.0, "GPU": 1.0}, "b": {"CPU": 2.0}, "head": {}, "c": {"CPU": 2.0, "GPU": 2.0}}
    nodes = [{"NodeID": name, "Alive": name != "c", "Resources": each} for name, each in has.items()]
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    asked: list[dict[str, Any]] = []
    begins = types.SimpleNamespace(begin=types.SimpleNamespace(remote=lambda: "reference"))
    remote = types.SimpleNamespace(remote=lambda *_: begins)
    actor = types.SimpleNamespace(options=lambda **options: asked.append(options) or remote)
    monkeypatch.setattr(cluster.ray, "remote", lambda _: actor)
    here = cluster.Cluster.__new__(cluster.Cluster)
    here.pending, here.digests, here.data = {}, {}, []
    assert here.start([], gpu, avoid) is begins
    assert asked[0].get("label_selector", {}).get("ray.io/node-id") == kept_from


def test_sigterm_is_again_what_it_was_once_ray_is_connected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ray takes it for itself, and ends the process with another status than the fleet promises."""
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **__: signal.signal(signal.SIGTERM, signal.SIG_IGN))
    cluster.connect("local", 1, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("package", ["dvc", "ray", "rich"])
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else real(name))
    with pytest.raises(BadInput, match=f"^{package} is not installed here: `make fleet` installs it"):
        fleet.require_installed()


def test_why_a_task_was_lost_is_one_line() -> None:
    died = exceptions.RayError("The actor died because its node has died.\n\tactor_id: 0123\n")
    assert cluster.Lost(died).reason == "The actor died because its node has died."
    fault = exceptions.RayTaskError("f", "Traceback:\n  File ...\nOSError: no space left\n", OSError("no space left"))
    assert cluster.Lost(fault).reason == "OSError: no space left"


def test_a_cluster_whose_head_has_died_ends_the_driver_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(*_: object, **__: object) -> None:
        raise OSError("Broken pipe")

    monkeypatch.setattr(cluster.ray, "wait", wait)
    lost = cluster.Cluster.__new__(cluster.Cluster)
    lost.pending = {}
    lost.pending = {"reference": "task"}
    says = r"^the connection to the cluster is lost \(Broken pipe\): .*the same command"
    with pytest.raises(TryAgain, match=says):
        list(lost.news(0.1))
    task = types.SimpleNamespace(news=types.SimpleNamespace(remote=wait))
    with pytest.raises(TryAgain, match=says):
        lost.more(task)


def test_a_stop_while_ray_connects_is_a_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster.ray, "init", lambda *_, **__: sys.exit(15))
    with pytest.raises(Stopped) as stopped:
        cluster.connect("local", 1, tmp_path)
    assert stopped.value.status == 143
