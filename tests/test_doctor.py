"""tools/doctor.py: every check in good and in bad states; it changes nothing and imports neither DVC nor pydantic."""

import dataclasses
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lib.card import RunCard, depth
from lib.cards import read_with_study
from lib.checkpoint import Checkpoints
from lib.files import canonical_json, write_whole
from lib.machine.device import cores
from lib.machine.stopping import Stop
from lib.metrics import read_metrics, write_metrics
from lib.recipe import OF_THE_STUDY
from lib.words import counted
from stages import train
from tests.making import CARD, IC_CARD
from tests.switches import turned_back
from tools import doctor, doctor_capacity, doctor_study
from tools.doctor import BAD, NOTE, OK, Finding
from tools.doctor_project import Project

ROOT = Path(__file__).parents[1]
ENDED = 2**22 + 1  # above Linux's largest process number


pytestmark = pytest.mark.usefixtures("process_as_it_was")  # the doctor times a step as training takes it


def write_plan(*cards: RunCard) -> None:
    for card in cards:
        card.write(Path("plan", f"{card.name}.json"))
    runs = [card.name for card in cards]
    networks = {
        card.network: {"block": card.block, "depth": depth(card.block, card.blocks_per_stage)} for card in cards
    }
    sizes = {key: getattr(cards[0], key) for key in ("dataset", "epochs", "train_images", "test_images")}
    study = {"runs": runs, "preset": "small", "networks": networks, "recipe": OF_THE_STUDY, **sizes}
    study["report"] = {"figure_dpi": 50, "accuracy_from": 0.1}
    write_whole(Path("plan/study.json"), canonical_json(study))


@pytest.fixture(scope="session")
def pristine_study(pristine_stand_in: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with data, a plan of two runs, and the first of them trained by the stage itself."""
    study = tmp_path_factory.mktemp("doctor")
    shutil.copytree(pristine_stand_in, study / "data/cifar10")
    with turned_back(), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(study)
        write_plan(CARD, IC_CARD)
        list(train.train(*read_with_study([Path("plan", f"{CARD.name}.json")])[0], train.Shared(Stop(), 1)))
    return study


@pytest.fixture
def study(pristine_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(shutil.copytree(pristine_study, tmp_path / "study"))
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("CIFAR10_SOURCE", raising=False)
    return tmp_path / "study"


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.delenv("CIFAR10_SOURCE", raising=False)
    return tmp_path / "empty"


def tree(folder: Path) -> dict[str, str]:
    """Every file's content and time, and every folder's."""
    return {
        str(
            path
        ): f"{path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''}"
        for path in [folder, *folder.rglob("*")]
    }


def mine() -> Path:
    """The folder of the run that is trained."""
    (folder,) = Path("checkpoints").glob(f"{CARD.name}-*")
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def worst(found: list[Finding]) -> str:
    return max((each.mark for each in found), key=[OK, NOTE, BAD].index)


# The whole report.


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[str]]:
    """python -m tools.doctor"""
    monkeypatch.setattr(sys, "argv", ["doctor"])
    with pytest.raises(SystemExit) as exit:
        doctor.main()
    return int(exit.value.code or 0), capsys.readouterr().out.splitlines()


def test_a_sound_study_has_status_0_and_lines_that_align(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, lines = run(capsys, monkeypatch)
    assert status == 0
    for line in lines[:-1]:
        assert line[:4].strip() in (OK, NOTE)
        assert line[4:6] == line[17:19] == "  " and line[6] != " " and line[19] != " ", line
    assert lines[-1].startswith("0 BAD")


def test_what_is_bad_makes_the_status_1(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_a_bit(Path("data/cifar10/cifar-10-batches-py/data_batch_2"))
    status, lines = run(capsys, monkeypatch)
    assert status == 1
    assert [line for line in lines if line.startswith("BAD")]


@pytest.mark.parametrize("state", ["sound", "spoilt", "bare"])
def test_nothing_is_changed(
    state: str, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if state == "spoilt":
        flip_a_bit(mine() / "epoch-0002.ckpt")
        (mine() / ".epoch-0003.ckpt.17.tmp").write_bytes(b"half")
        write_whole(Path(".dvc/tmp/rwlock"), b"")
        write_whole(Path(".dvc/tmp/lock"), b" 17\n")
        flip_a_bit(Path("data/cifar10/cifar-10-batches-py/test_batch"))
    elif state == "bare":
        for folder in ("plan", "data", "checkpoints", "metrics", "models"):
            shutil.rmtree(folder)
    before = tree(study)
    run(capsys, monkeypatch)
    assert tree(study) == before


@pytest.mark.parametrize("error", [RuntimeError("odd\nvery odd"), KeyError("k"), RecursionError(), OSError(5, "I/O")])
def test_a_check_that_fails_is_a_finding_in_one_line(error: Exception) -> None:
    def check() -> Iterator[Finding]:
        yield Finding(OK, "first", "found")
        raise error

    first, second = doctor.guarded(check)
    assert (first.what, second.mark, second.what) == ("first", BAD, "check")
    assert type(error).__name__ in second.found and len(str(second).splitlines()) == 1


def test_neither_dvc_nor_pydantic_is_imported_and_a_folder_with_nothing_is_not_bad(empty: Path) -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(('dvc', 'pydantic', 'yaml', 'torchvision', 'psutil')));"
    command = [sys.executable, "-c", f"{blocked} from tools import doctor; sys.argv = ['doctor']; doctor.main()"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "BAD  " not in result.stdout and result.stderr == ""


def test_without_torch_it_says_so(empty: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.modules['torch'] = None; from tools import doctor; doctor.main()"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert result.returncode == 1 and result.stderr == ""
    bad = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("BAD")]
    assert bad == ["torch", "study"]


def test_where_nobody_reads_on_it_ends_without_a_word(empty: Path) -> None:
    """As in `make doctor | head -1`."""
    command = [sys.executable, "-m", "tools.doctor"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout and process.stdout.readline().startswith(b"ok ")
        process.stdout.close()
        assert process.stderr and process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


def test_help_explains_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["doctor", "--help"])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    out = capsys.readouterr().out
    assert ended.value.code == 0 and "changes nothing" in out and "Exit status" in out


def test_copies_that_experiments_left_are_noted_and_none_is_no_line(empty: Path) -> None:
    assert list(doctor.dvc_copies()) == []
    write_whole(Path(".dvc/tmp/exps/standalone/tmp1/data/batch"), bytes(3_000_000))
    (found,) = doctor.dvc_copies()
    assert found.mark == NOTE and found.found.startswith("1 temporary copy of an experiment, 3 MB")
    assert found.cure.endswith("rm -r .dvc/tmp/exps/standalone/tmp*")


# The machine.


@pytest.mark.parametrize(
    "version, mark",
    [((3, 10, 9), BAD), ((3, 11, 0), OK), ((3, 13, 12), OK), ((3, 14, 0), BAD)],
)
def test_python_is_one_the_project_is_tested_with(
    version: tuple[int, ...], mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.sys, "version_info", version)
    (found,) = doctor.python()
    assert found.mark == mark


def test_torch_is_new_enough_and_the_one_tested_with() -> None:
    marks = {version: doctor.torch_version(version).mark for version in ("2.10.1", "2.11.0a0+git", "3.0", "dev")}
    assert marks == {"2.10.1": BAD, "2.11.0a0+git": NOTE, "3.0": NOTE, "dev": BAD}
    assert doctor.torch_version(doctor.pinned("torch") + "+cu130").mark == OK


def test_without_dvc_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    (found,) = doctor.dvc_version()
    assert found.mark == OK and "stages.train" in found.found


def test_another_dvc_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.0")
    (found,) = doctor.dvc_version()
    assert found.mark == NOTE and doctor.pinned("dvc") in found.cure


def entry(pid: int) -> dict[str, object]:
    return {"pid": pid, "cmd": "dvc repro"}


@pytest.mark.parametrize(
    "content, mark",
    [
        (None, OK),
        ("{}", OK),
        (json.dumps({"read": {"/a": [entry(ENDED)]}, "write": {"/b": entry(ENDED)}}), OK),
        pytest.param(json.dumps({"write": {"/a": entry(os.getpid())}}), NOTE, id="alive, writes"),
        pytest.param(json.dumps({"read": {"/a": [entry(ENDED), entry(os.getpid())]}}), NOTE, id="alive, reads"),
        ("", BAD),
        ('{"read": {', BAD),
        ("null", BAD),
        ('{"other": {}}', BAD),
        ('{"write": {"/a": {"pid": "x", "cmd": "dvc repro"}}}', BAD),
        ('{"read": {"/a": {"pid": 1, "cmd": "dvc repro"}}}', BAD),
    ],
)
def test_the_rwlock_is_judged_as_dvc_would(content: str | None, mark: str, empty: Path) -> None:
    if content is not None:
        write_whole(Path(".dvc/tmp/rwlock"), content.encode())
    (found,) = doctor.dvc_rwlock()
    assert found.mark == mark
    assert (found.cure == "rm .dvc/tmp/rwlock") == (mark == BAD)
    assert (str(os.getpid()) in found.found) == (mark == NOTE)


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "null", '{"other": {}}', '{"write": {"/a": {"pid": "x", "cmd": ""}}}'),
        pytest.param(json.dumps({"write": {"/a": entry(os.getppid())}}), id="alive"),
    ],
)
def test_dvc_itself_refuses_what_is_called_broken_or_held_until_it_is_deleted(content: str, empty: Path) -> None:
    rwlock = pytest.importorskip("dvc.rwlock")
    from dvc.fs import localfs
    from dvc.lock import LockError

    lock = functools.partial(rwlock.rwlock, str(empty), localfs, "dvc repro", [], ["/a"], False)
    write_whole(Path("rwlock"), content.encode())
    with pytest.raises((rwlock.RWLockFileCorruptedError, rwlock.RWLockFileFormatError, LockError)), lock():
        pass
    Path("rwlock").unlink()
    with lock():
        pass


def test_dvcs_lock_is_free_unless_a_process_holds_it(empty: Path) -> None:
    assert [each.found for each in doctor.dvc_lock()] == ["free"]
    write_whole(Path(".dvc/tmp/lock"), b" 17\n")
    assert [each.found for each in doctor.dvc_lock()] == ["free"]
    with open(".dvc/tmp/lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (found,) = doctor.dvc_lock()
    assert found.mark == NOTE and "process 17" in found.found


def test_the_device_is_the_cpu_or_the_gpu(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor_capacity.shutil, "which", lambda name: None)
    (found,) = doctor_capacity.device(Project())
    assert found.mark in (OK, NOTE) and f"CPU, {counted(cores(), 'core')}, " in found.found
    monkeypatch.setattr("lib.machine.limits.cpus", lambda: 1.0)  # as a container's
    (found,) = doctor_capacity.device(Project())
    assert "CPU, 1 core, 1 PyTorch thread, " in found.found
    monkeypatch.setattr(doctor_capacity, "convolves_in_bfloat16", lambda device: False)
    (found,) = doctor_capacity.device(Project())
    assert "asks for bfloat16" not in found.found
    write_plan(dataclasses.replace(CARD, precision="bfloat16"), IC_CARD)
    (found,) = doctor_capacity.device(Project())
    assert found.mark == NOTE and "asks for bfloat16" in found.found and "precision: float32" in found.cure
    monkeypatch.setattr(doctor_capacity.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    (found,) = doctor_capacity.device(Project())
    assert found.mark == NOTE and "does not see" in found.found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (60e9, 80e9))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Toy GPU")
    (found,) = doctor_capacity.device(Project())
    assert found.mark == OK and "Toy GPU, 60.0 GB of 80.0 GB free; 2 GPUs" in found.found


def test_a_gpu_that_the_plan_asks_for_and_is_not_there_is_bad(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    write_plan(dataclasses.replace(CARD, device="cuda", ordering="conv_relu_ic", dropout_p=0.1))
    assert worst(list(doctor_capacity.device(Project()))) == BAD
    assert worst(list(doctor_capacity.time_needed(Project()))) == BAD


def test_a_disk_that_is_too_small_is_bad(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = sum(doctor_capacity.bytes_to_write(Project()).values())
    for free, mark in ((needed, OK), (needed - 1, BAD)):
        monkeypatch.setattr(shutil, "disk_usage", lambda place, free=free: SimpleNamespace(free=free))
        assert worst(list(doctor_capacity.disk(Project()))) == mark


def test_a_folder_that_cannot_be_written_is_bad(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree("models")
    Path("models").write_text("")
    (found,) = (each for each in doctor_capacity.disk(Project()) if each.mark == BAD)
    assert found.cure == "mv models models.old"
    monkeypatch.setattr(os, "access", lambda path, mode: path != Path("metrics"))
    assert "chmod u+rwx metrics" in [each.cure for each in doctor_capacity.disk(Project())]


def test_the_bytes_are_those_that_training_asks_for(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(train, "require_room", lambda folder, needed: asked.append(needed))
    monkeypatch.setattr(Checkpoints, "require_room", lambda self, needed, epochs: asked.append(needed))
    list(train.train(*read_with_study([Path("plan", f"{IC_CARD.name}.json")])[0], train.Shared(Stop(), 1)))
    assert asked == list(train.bytes_of(train.model_of(IC_CARD)))


def test_room_is_wanted_for_three_checkpoints_of_each_run_less_what_is_there(study: Path) -> None:
    one = train.bytes_of(train.model_of(IC_CARD))[1]
    checkpoints = Path("checkpoints")
    assert doctor_capacity.bytes_to_write(Project())[checkpoints] == 3 * one  # the other run is done
    longer = dataclasses.replace(CARD, epochs=3)
    write_plan(longer)
    there = sum(path.stat().st_size for path in mine().iterdir())
    one = train.bytes_of(train.model_of(longer))[1]
    assert doctor_capacity.bytes_to_write(Project())[checkpoints] == 3 * one - there
    shutil.rmtree("data")
    assert doctor_capacity.bytes_to_write(Project())[Path("data/cifar10")] > 500e6  # archive, files, DVC's copy


# The study.


def test_the_plan_is_counted_and_a_damaged_card_is_bad(study: Path) -> None:
    (found,) = doctor_study.plan(Project())
    assert found.mark == OK and "2 of 2 cards" in found.found and "preset small" in found.found
    path = Path("plan", f"{CARD.name}.json")
    path.write_text(path.read_text().replace('"epochs": 2', '"epochs": 3'))
    first, second = doctor_study.plan(Project())
    assert first.mark == BAD and path.name in first.found and "stages.plan" in first.cure
    assert "1 of 2 cards" in second.found


def test_a_card_that_is_missing_is_bad_and_a_missing_study_is_noted(study: Path) -> None:
    Path("plan/study.json").unlink()
    assert worst(list(doctor_study.plan(Project()))) == NOTE
    runs = [CARD.name, IC_CARD.name]
    write_whole(Path("plan/study.json"), canonical_json({"runs": runs, "preset": "small"}))  # the report refuses it
    assert worst(list(doctor_study.plan(Project()))) == NOTE
    write_plan(CARD, IC_CARD)
    Path("plan", f"{IC_CARD.name}.json").unlink()
    assert worst(list(doctor_study.plan(Project()))) == BAD


@pytest.mark.parametrize("source, mark", [(None, NOTE), (".", NOTE), ("https://example.org/c", NOTE), ("gone", BAD)])
def test_data_that_are_missing_are_noted_with_where_to_get_them(
    source: str | None, mark: str, empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if source:
        monkeypatch.setenv("CIFAR10_SOURCE", source)
    (found,) = doctor_study.data(Project())
    assert found.mark == mark and "CIFAR10_SOURCE" in found.found + found.cure


def spoil_a_batch() -> None:
    flip_a_bit(Path("data/cifar10/cifar-10-batches-py/data_batch_3"))


def want_cifar10() -> None:
    write_plan(dataclasses.replace(CARD, dataset="cifar10"))


def want_too_much() -> None:
    write_plan(dataclasses.replace(CARD, train_images=201))


@pytest.mark.parametrize(
    "spoil, words", [(spoil_a_batch, "data_batch_3"), (want_cifar10, "is for cifar10"), (want_too_much, "train_images")]
)
def test_data_that_training_would_refuse_are_bad(spoil: Callable[[], None], words: str, study: Path) -> None:
    assert [each.mark for each in doctor_study.data(Project())] == [OK]
    spoil()
    (found,) = doctor_study.data(Project())
    assert found.mark == BAD and words in found.found


def test_checkpoints_are_found_where_training_put_them(study: Path) -> None:
    line, total = doctor_study.checkpoints(Project())
    assert line.mark == total.mark == OK
    assert line.found.startswith(f"{CARD.name}: epoch 2 of 2") and "intact" in line.found
    assert "1 folder," in total.found and str(study) in total.found


def test_checkpoints_under_dvc_root_are_found(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move("checkpoints", "elsewhere/checkpoints")
    monkeypatch.setenv("DVC_ROOT", "elsewhere")
    assert "epoch 2 of 2" in next(iter(doctor_study.checkpoints(Project()))).found


def test_a_damaged_checkpoint_is_noted_and_one_without_another_is_bad(study: Path) -> None:
    flip_a_bit(mine() / "epoch-0002.ckpt")
    line, _ = doctor_study.checkpoints(Project())
    assert line.mark == NOTE and "epoch 1 of 2" in line.found and line.cure == f"rm {mine()}/epoch-0002.ckpt"
    flip_a_bit(mine() / "epoch-0001.ckpt")
    line, _ = doctor_study.checkpoints(Project())
    assert line.mark == BAD and "no sound checkpoint" in line.found


@pytest.mark.parametrize("name", ["epoch-0007.damaged", ".epoch-0007.ckpt.17.tmp"])
def test_what_was_set_aside_or_left_half_written_is_noted(name: str, study: Path) -> None:
    (mine() / name).write_bytes(b"half")
    line, _ = doctor_study.checkpoints(Project())
    assert line.mark == NOTE and line.cure == f"rm {mine()}/{name}"


def test_a_folder_in_use_names_who_trains_and_its_new_files_are_no_litter(study: Path) -> None:
    with open(mine() / ".lock", "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (mine() / ".epoch-0003.ckpt.17.tmp").write_bytes(b"half")
        line, _ = doctor_study.checkpoints(Project())
    assert line.mark == OK and "being trained by process" in line.found


def test_another_runs_checkpoints_are_noted_with_how_to_clear_them(study: Path) -> None:
    folder = mine()
    write_plan(dataclasses.replace(CARD, learning_rate=0.5), IC_CARD)
    line, _ = doctor_study.checkpoints(Project())
    assert line.mark == NOTE and "other parameters" in line.found and line.cure.endswith(f"rm -r {folder}")
    with open(folder / ".lock") as file:  # but never while they are in use
        fcntl.flock(file, fcntl.LOCK_EX)
        line, _ = doctor_study.checkpoints(Project())
    assert "rm -r" not in line.cure


@pytest.mark.parametrize("missing", ["plan", "data"])
def test_without_plan_or_data_no_checkpoint_is_called_useless(missing: str, study: Path) -> None:
    shutil.rmtree(missing)
    found = list(doctor_study.checkpoints(Project()))
    assert len(found) == 2 and not any("rm -r" in each.cure for each in found)


def test_metrics_are_counted_and_damaged_ones_are_bad(study: Path) -> None:
    (found,) = doctor_study.metrics(Project())
    assert found.mark == OK and "1 of 2 planned runs" in found.found
    Path("metrics", f"{CARD.name}.json").write_text("{")
    assert worst(list(doctor_study.metrics(Project()))) == BAD


def test_metrics_made_under_different_circumstances_are_noted(study: Path) -> None:
    run = read_metrics(Path("metrics", f"{CARD.name}.json"))
    facts = dataclasses.replace(run.facts, ordering=IC_CARD.ordering, recipe=IC_CARD.recipe, device="Toy GPU")
    write_metrics(Path("metrics", f"{IC_CARD.name}.json"), facts, run.history)
    count, mixed = doctor_study.metrics(Project())
    assert "2 of 2" in count.found
    assert mixed.mark == NOTE and "Toy GPU (1 run)" in mixed.found and "cpu (1 run)" in mixed.found


@pytest.mark.parametrize(
    "other",
    [
        {"epochs": 3},
        {"blocks_per_stage": 2},
        {"precision": "bfloat16"},
        {"train_images": 63},
        {"test_images": 39},
    ],
)
def test_metrics_of_runs_that_are_not_the_plans_are_noted(other: dict[str, Any], study: Path) -> None:
    write_plan(dataclasses.replace(CARD, **other))
    _, others = doctor_study.metrics(Project())
    assert others.mark == NOTE and f"metrics/{CARD.name}.json" in others.cure


# The time.


def seconds_said(monkeypatch: pytest.MonkeyPatch, step: float = 1.0) -> Finding:
    monkeypatch.setattr(doctor_capacity, "seconds_per_step", lambda card: (step, "this CPU"))
    (found,) = doctor_capacity.time_needed(Project())
    return found


def test_what_is_done_needs_no_time(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seconds_said(monkeypatch)
    assert found.mark == OK and found.found.startswith("about 8 s on this CPU for 1 run ")  # 2 epochs of 4 steps
    write_plan(CARD)
    assert "nothing is left" in seconds_said(monkeypatch).found
    write_plan(dataclasses.replace(CARD, epochs=5))
    assert seconds_said(monkeypatch).found.startswith("about 12 s on this CPU for 1 run ")


def test_time_goes_with_depth_and_days_point_to_the_rehearsal(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_said(monkeypatch).mark == NOTE  # without a plan
    write_plan(CARD, dataclasses.replace(CARD, network="deep", blocks_per_stage=5))  # 8 and 32 layers
    assert seconds_said(monkeypatch).found.startswith("about 40 s on this CPU for 2 runs ")
    found = seconds_said(monkeypatch, 3600.0)
    assert found.mark == NOTE and "days" in found.found and "make rehearsal" in found.cure


def test_a_step_is_measured(study: Path) -> None:
    (found,) = doctor_capacity.time_needed(Project())
    assert found.mark == OK and "estimate" in found.found and "this CPU" in found.found
