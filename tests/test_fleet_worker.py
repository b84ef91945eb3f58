"""What the fleet does on a node, with a training that writes what a test says instead of learning."""

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lib import lock
from lib.errors import BadInput, TryAgain
from lib.fleet import node
from lib.fleet import worker as fleet_worker
from lib.fleet.worker import LOG_BYTES, Came, Ended, Order, Worker, worth_keeping

FILES = {"cifar-10-batches-py/data_batch_1": b"images", "dataset.json": b"{}"}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
TRAINING = """
import os, pathlib, sys, time
assert open("data/cifar10/cifar-10-batches-py/data_batch_1", "rb").read() == b"images"
folder = pathlib.Path("checkpoints", "{folder}")
folder.mkdir(exist_ok=True)
{begin}
done = len(list(folder.glob("*.ckpt")))
print("cards", sys.argv[1:], pathlib.Path(sys.argv[1]).read_text(), os.environ["OMP_NUM_THREADS"], flush=True)
for epoch in range(done + 1, 4):
    (folder / "tmp").write_text(f"epoch {{epoch}}")
    os.replace(folder / "tmp", folder / f"epoch-{{epoch:04}}.ckpt")
    {each}
{end}
"""
# An epoch's end: wait, a minute at most, until the test has had its checkpoint, and says so in the task's folder.
UNTIL_SEEN = "for _ in range(6000): os.path.exists(f'epoch-{epoch:04}.ckpt') or time.sleep(0.01)"
ORDER = Order("tiny", b"a card", "tiny-0123", 3)


@pytest.fixture
def on_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"ic-fleet-{os.getuid()}"
    folder.mkdir(mode=0o700)
    return folder


def training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: str = UNTIL_SEEN, end: str = "", **to: str) -> None:
    """Put a training of our own where the code has come to."""
    code = tmp_path / "code"
    (code / "stages").mkdir(parents=True, exist_ok=True)
    (code / "stages" / "__init__.py").touch()
    (code / "stages" / "train.py").write_text(
        TRAINING.format(folder=to.get("folder", ORDER.folder), begin=to.get("begin", ""), each=each, end=end)
    )
    monkeypatch.setattr(node, "CODE", code)


def fetch() -> Mapping[str, bytes]:
    return FILES


def worker() -> Worker:
    return Worker([ORDER], DIGESTS, fetch)


def all_news(of: Worker, checkpoints: Mapping[str, tuple[str, bytes]] = {}) -> list[Came | Ended]:
    news = [of.train(checkpoints)]
    while not isinstance(news[-1], Ended):
        seen(of, news[-1].file)
        news.append(of.news())
    return news


def seen(of: Worker, *checkpoints: str) -> None:
    """The training waits for it before its next epoch."""
    for name in checkpoints:
        (of.place / name).touch()


@contextlib.contextmanager
def holder(folder: Path, seconds: float = 600) -> Iterator[int]:
    """Another process that trains there; its number."""
    program = (
        "import sys, time; from lib import lock; from pathlib import Path; "
        f"lock.take(Path({str(folder)!r}), 'tiny'); print('held', flush=True); time.sleep({seconds})"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as other:
        try:
            assert other.stdout and other.stdout.readline() == b"held\n"
            yield other.pid
        finally:
            other.kill()


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def not_used_for_weeks(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".lock").touch()
    long_ago = time.time() - node.LEFT - 60
    os.utime(folder, (long_ago, long_ago))


def started_after(condition: Callable[[], bool]) -> Callable[..., Any]:
    """subprocess.Popen, which asserts a condition first."""
    real = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        assert condition()
        return real(*arguments, **options)

    return start


def leave(home: Path, order: Order, epoch: int) -> Path:
    """Write a checkpoint where a training on this node does."""
    path = home / "checkpoints" / order.folder / f"epoch-{epoch:04}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"epoch {epoch}")
    return path


def came(epoch: int) -> Came:
    return Came("tiny", f"epoch-{epoch:04}.ckpt", f"epoch {epoch}".encode())


# A training.


def test_every_checkpoint_is_handed_over_then_the_end_and_nothing_is_left(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch)
    *checkpoints, ended = all_news(worker())
    assert checkpoints == [came(1), came(2), came(3)]
    assert ended == Ended(0, "cards ['plan/tiny.json'] a card 1\n")
    assert list((on_node / "checkpoints").iterdir()) == list((on_node / "tasks").glob("*/")) == []


def test_where_epochs_are_quicker_than_their_way_home_the_newest_is_taken(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch, each="pass")
    *_, last, ended = all_news(worker())
    assert (last, ended.status) == (came(3), 0)


def test_it_goes_on_from_the_drivers_checkpoint_which_is_not_sent_back(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch)
    *checkpoints, ended = all_news(worker(), {"tiny": ("epoch-0001.ckpt", b"epoch 1")})
    assert checkpoints == [came(2), came(3)] and ended.status == 0


@pytest.mark.parametrize("up_to", [2, 3])
def test_what_an_earlier_task_left_here_is_newer_than_the_drivers_and_is_used(
    up_to: int, on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent only once the training has taken it for sound: gone past it, or ended."""
    for epoch in range(2, up_to + 1):
        leave(on_node, ORDER, epoch)
    training(tmp_path, monkeypatch)
    *checkpoints, ended = all_news(worker(), {"tiny": ("epoch-0001.ckpt", b"epoch 1")})
    assert checkpoints == [came(3)] and ended.status == 0


def test_what_an_earlier_task_left_damaged_is_not_sent_and_the_training_sets_it_aside(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sent at once it would end the worker, time and again, before the training has even begun."""
    leave(on_node, ORDER, 2).write_text("damaged")
    aside = "time.sleep(0.5); (folder / 'epoch-0002.ckpt').rename(folder / 'aside')"
    training(tmp_path, monkeypatch, begin=aside, each="pass")
    *checkpoints, ended = all_news(worker(), {"tiny": ("epoch-0001.ckpt", b"epoch 1")})
    assert checkpoints[-1] == came(3) and ended.status == 0
    assert all(each.content.startswith(b"epoch") for each in checkpoints)


OTHER = Order("other", b"a card", "other-4567", 9)


def test_a_run_whose_epochs_are_quick_does_not_keep_back_those_beside_it(on_node: Path, tmp_path: Path) -> None:
    """Even if it has far fewer epochs behind it."""
    beside = Worker([ORDER, OTHER], DIGESTS, fetch)
    beside.home, beside.place, beside.process = on_node, tmp_path, SimpleNamespace(poll=lambda: None)  # under way
    beside.found = {ORDER.run: 0, OTHER.run: 0}
    beside.sent[OTHER.run] = 7
    sent = []
    for epoch in range(1, 4):
        leave(on_node, ORDER, epoch)
        leave(on_node, OTHER, 8)
        news = beside.news()
        assert isinstance(news, Came)
        sent.append(news.run)
    assert sent == [ORDER.run, OTHER.run, ORDER.run]


def test_what_an_earlier_task_left_stays_where_the_training_ends_before_it_has_accepted_it(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = leave(on_node, ORDER, 3)
    training(tmp_path, monkeypatch, begin="sys.exit(2)")
    (ended,) = all_news(worker(), {"tiny": ("epoch-0001.ckpt", b"epoch 1")})
    assert ended.status == 2 and left.read_text() == "epoch 3"
    training(tmp_path, monkeypatch, each="pass")
    *checkpoints, ended = all_news(worker(), {"tiny": ("epoch-0001.ckpt", b"epoch 1")})
    assert checkpoints == [came(3)] and ended.status == 0 and not left.parent.exists()


def test_how_it_failed_is_said_in_its_own_words(on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training(tmp_path, monkeypatch, end="print('train: the loss became nan', file=sys.stderr); sys.exit(2)")
    ended = all_news(worker())[-1]
    assert ended.status == 2 and ended.log.endswith("train: the loss became nan\n")


def test_so_is_what_was_said_long_before_the_end(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run that failed early, beside others that went on for hours."""
    training(tmp_path, monkeypatch, begin="print('train: first: nan', flush=True)", end="print('epoch ' * 9999)")
    ended = all_news(worker())[-1]
    assert ended.log.startswith("train: first: nan\n") and ended.log.endswith("epoch \n")


def test_an_error_told_long_before_the_end_of_a_log_is_sent_with_the_end() -> None:
    epochs = b"run 2 of 2  tiny  epoch 1/100\n" * 2000
    log = worth_keeping(b"run 1 of 2\ntrain: first: its loss became nan\n" + epochs + b"train: 1 of 2 runs failed\n")
    assert log.startswith(b"train: first: its loss became nan\n") and log.endswith(b"\ntrain: 1 of 2 runs failed\n")
    assert LOG_BYTES < len(log) < LOG_BYTES + 100
    assert worth_keeping(epochs[:100]) == epochs[:100]


def test_a_killed_training_ends_with_the_signals_number(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch, end="os.kill(os.getpid(), 9)")
    assert all_news(worker())[-1].status == -signal.SIGKILL


def test_a_node_that_computes_another_fingerprint_is_refused_at_once(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch, each="time.sleep(600)", folder="tiny-4567")
    start = time.monotonic()
    ended = all_news(worker())[-1]
    assert time.monotonic() - start < 30
    assert ended == Ended(2, "train: this node takes its run for another, tiny-4567: its code is not ours")


def test_a_predecessor_that_is_still_ending_is_waited_for(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch)
    folder = on_node / "checkpoints" / ORDER.folder
    with holder(folder, seconds=1):
        monkeypatch.setattr(subprocess, "Popen", started_after(lambda: lock.holder(folder) is None))
        assert all_news(worker())[-1].status == 0


# Others on the same node.


def test_a_run_that_another_process_trains_here_is_left_to_it(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch)
    monkeypatch.setattr(fleet_worker, "PATIENCE", 0.3)
    folder = on_node / "checkpoints" / ORDER.folder
    with holder(folder) as other:
        (folder / "epoch-0001.ckpt").write_text("the other's")
        before = files_in(folder)
        ended = worker().train({"tiny": ("epoch-0001.ckpt", b"epoch 1")})
        assert isinstance(ended, Ended) and ended.status == TryAgain.status
        assert ended.log.startswith(f"train: tiny is being trained by process {other} on ") and "\n" not in ended.log
        assert files_in(folder) == before
    assert all_news(worker())[-1].status == 0, "it holds nothing of the run afterwards"


def test_a_folder_that_another_process_took_meanwhile_is_not_removed_at_the_end(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch, each="pass", end="sys.exit(75)")
    late = worker()
    late.train({})
    folder = on_node / "checkpoints" / ORDER.folder
    with holder(folder):
        while not isinstance(ended := late.news(), Ended):
            pass
        assert ended.status == 75
        assert {"epoch-0001.ckpt", "epoch-0002.ckpt", "epoch-0003.ckpt"} <= files_in(folder).keys()


def test_a_worker_whose_training_is_over_has_its_run_until_it_has_removed_it(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch)
    monkeypatch.setattr(fleet_worker, "PATIENCE", 0.3)
    first = worker()
    first.train({})
    seen(first, *(came(epoch).file for epoch in (1, 2, 3)))
    assert first.process and first.process.wait() == 0  # and nobody has asked for its news yet
    second = worker().train({"tiny": ("epoch-0001.ckpt", b"epoch 1")})
    assert isinstance(second, Ended) and second.status == TryAgain.status
    assert f"is being trained by process {os.getpid()} on " in second.log
    assert (first.news(), first.news()) == (came(3), Ended(0, "cards ['plan/tiny.json'] a card 1\n"))
    assert all_news(worker())[-1].status == 0


# The node's fault.


def test_a_node_that_cannot_hold_the_data_blames_itself_and_not_the_run(on_node: Path) -> None:
    ended = Worker([ORDER], DIGESTS, lambda: dict.fromkeys(FILES, b"damaged")).train({})
    assert isinstance(ended, Ended) and ended.status == TryAgain.status and "was damaged on its way" in ended.log


def test_a_task_that_could_not_begin_leaves_no_folder(on_node: Path) -> None:
    task = Worker([ORDER], DIGESTS, lambda: dict.fromkeys(FILES, b"damaged"))
    task.train({})
    assert list((on_node / "tasks").glob("*/")) == []


def test_what_a_killed_task_left_is_swept_and_a_living_ones_is_not(on_node: Path) -> None:
    script = (
        "import time; from pathlib import Path; from lib.fleet import node\n"
        f"with node.fresh_folder(Path({str(on_node / 'tasks')!r})) as folder:\n"
        "    print(folder, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) as other:
        assert other.stdout
        try:
            theirs = Path(other.stdout.readline().decode().strip())
            with node.fresh_folder(on_node / "tasks") as mine:
                assert theirs.is_dir() and mine.is_dir() and mine != theirs
            assert not mine.exists() and theirs.is_dir()
        finally:
            other.kill()
    with node.fresh_folder(on_node / "tasks") as mine:
        assert list((on_node / "tasks").glob("*/")) == [mine]


def test_tasks_of_other_hosts_are_theirs_to_sweep(on_node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("one", "one.more", "two"):
        (on_node / "tasks" / f"{host}.abc").mkdir(parents=True)
    monkeypatch.setattr("socket.gethostname", lambda: "one")
    with node.fresh_folder(on_node / "tasks") as mine:
        assert {path.name for path in (on_node / "tasks").glob("*/")} == {mine.name, "one.more.abc", "two.abc"}


def test_what_nobody_has_used_for_two_weeks_is_swept(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch)
    data = node.data_here(on_node / "data", DIGESTS, fetch)
    old, kept = on_node / "checkpoints" / "old-01", on_node / "checkpoints" / "young-23"
    kept.mkdir(parents=True)
    for folder in (old, on_node / "data" / "0123", on_node / "runs" / "old-01", on_node / "checkpoints" / "held-45"):
        not_used_for_weeks(folder)
    with holder(on_node / "checkpoints" / "held-45"):
        assert all_news(worker())[-1].status == 0
    assert {path.name for path in (on_node / "checkpoints").iterdir()} == {"young-23", "held-45"}
    assert list((on_node / "data").iterdir()) == [data]
    assert [path.name for path in (on_node / "runs").iterdir()] == [ORDER.folder]


def test_data_that_are_used_again_are_not_swept(on_node: Path) -> None:
    not_used_for_weeks(node.data_here(on_node / "data", DIGESTS, fetch))
    data = node.data_here(on_node / "data", DIGESTS, fetch)
    node.sweep(on_node)
    assert files_in(data).keys() >= FILES.keys()


def test_a_run_that_goes_on_from_what_lay_here_for_weeks_is_not_swept_before_its_training_holds_it(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch, each="pass")
    folder = on_node / "checkpoints" / ORDER.folder
    monkeypatch.setattr(node, "sweep", lambda home: not_used_for_weeks(folder))  # as it was when the task began
    monkeypatch.setattr(subprocess, "Popen", started_after(lambda: time.time() - folder.stat().st_mtime < 60))
    assert all_news(worker())[-1].status == 0


def test_another_users_folder_is_refused(on_node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: int(on_node.name.split("-")[-1]) + 1)
    elsewhere = on_node.parent / f"ic-fleet-{os.getuid()}"
    elsewhere.mkdir()
    with pytest.raises(BadInput, match="is another user's: set TMPDIR"):
        node.home()


def test_a_home_that_is_a_link_or_open_to_others_is_refused(on_node: Path) -> None:
    assert node.home() == on_node
    on_node.chmod(0o750)
    with pytest.raises(BadInput, match="is open to other users: delete it, or `chmod 700` it"):
        node.home()
    on_node.rmdir()
    on_node.symlink_to(tempfile.mkdtemp(dir=on_node.parent))
    with pytest.raises(BadInput, match="is no folder of its own: delete it, or set TMPDIR"):
        node.home()


# The data.


def test_the_data_come_once_and_what_is_damaged_later_comes_again(tmp_path: Path) -> None:
    fetched = []

    def fetch() -> Mapping[str, bytes]:
        fetched.append(1)
        return FILES

    folder = node.data_here(tmp_path, DIGESTS, fetch)
    assert node.data_here(tmp_path, DIGESTS, fetch) == folder and len(fetched) == 1
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES
    (folder / "dataset.json").write_bytes(b"[]")
    node.data_here(tmp_path, DIGESTS, fetch)
    assert (folder / "dataset.json").read_bytes() == b"{}" and len(fetched) == 2


def test_data_that_are_damaged_on_the_way_are_refused_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="data_batch_1 was damaged on its way"):
        node.data_here(tmp_path, DIGESTS, lambda: {**FILES, "cifar-10-batches-py/data_batch_1": b"imagex"})
    assert not list(tmp_path.rglob("data_batch_1"))


def test_of_two_tasks_at_once_one_fetches_and_the_other_waits(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from lib.fleet import node\n"
        "def fetch():\n    print('fetched', flush=True); time.sleep(1); return {'a': b'x'}\n"
        f"node.data_here(Path({str(tmp_path)!r}), {{'a': {hashlib.sha256(b'x').hexdigest()!r}}}, fetch)"
    )
    command = [sys.executable, "-c", script]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]) for _ in range(2)]
    assert sorted(each.communicate()[0] for each in both) == [b"", b"fetched\n"]
    assert [each.returncode for each in both] == [0, 0]


def test_versions_are_of_what_decides_results_and_leave_the_device_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda package: {"torch": "2.14.1+cpu", "ray": "2.60.0"}[package])
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert node.versions() == {"Python": python, "ray": "2.60.0", "torch": "2.14.1"}


# What a training finds around it, and what is heard of it.


def test_a_training_hears_nothing_of_the_dvc_around_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", "/elsewhere")
    environment = node.environment(gpu=False)
    assert "DVC_ROOT" not in environment and environment["OMP_NUM_THREADS"] == "1"
    assert fleet_worker.epoch_of("epoch-0012.ckpt") == 12


def test_our_code_comes_before_what_the_node_has_on_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/modules/torch")
    assert node.environment(gpu=False)["PYTHONPATH"] == f"{node.CODE}{os.pathsep}/modules/torch"
    monkeypatch.delenv("PYTHONPATH")
    assert node.environment(gpu=False)["PYTHONPATH"] == str(node.CODE)


@pytest.mark.parametrize(("devices", "seen"), [("", "''"), (" GPU 1", "'1'")])
def test_a_cpu_task_sees_no_gpu_and_a_gpu_task_its_own(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: str, seen: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    training(tmp_path, monkeypatch, each="pass", end="print('sees', repr(os.environ['CUDA_VISIBLE_DEVICES']))")
    task = worker()
    task.begin(devices, "a node")
    ended = all_news(task)[-1]
    assert isinstance(ended, Ended) and ended.log.endswith(f"sees {seen}\n")


def test_what_a_terminal_would_obey_is_made_visible(
    on_node: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training(tmp_path, monkeypatch, each="pass", end=r"print('\x1b[2J\u202eevil\r', flush=True); print('next')")
    ended = all_news(worker())[-1]
    assert isinstance(ended, Ended) and ended.log.endswith("\\x1b[2J\\u202eevil\\r\nnext\n")
