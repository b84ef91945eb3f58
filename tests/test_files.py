import errno
import json
import os
import stat

import pytest

from lib.errors import BadInput
from lib.files import canonical_json, read_json, write_whole


@pytest.mark.parametrize("content", [b"", b"new", b"n" * 2_000_000], ids=len)
def test_writing_replaces_the_whole_file_and_leaves_nothing_beside_it(content, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(b"old, and longer than new")
    write_whole(path, content)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file.json"]


def test_writing_makes_the_folders_it_needs(tmp_path):
    write_whole(tmp_path / "a" / "b" / "file.json", b"new")
    assert (tmp_path / "a" / "b" / "file.json").read_bytes() == b"new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("old", [b"old", None], ids=["over an old file", "where no file was"])
def test_writing_that_fails_leaves_the_folder_as_it_was(step, error, old, tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    if old is not None:
        path.write_bytes(old)
    before = os.listdir(tmp_path)

    def fail(*arguments):
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(BadInput if isinstance(error, OSError) else type(error)) as caught:
        write_whole(path, b"new")
    if isinstance(error, OSError):
        assert f"{path}: 3 bytes could not be written (No space left on device)" in str(caught.value)
    assert os.listdir(tmp_path) == before
    assert old is None or path.read_bytes() == old


def test_each_step_is_on_disk_before_the_next_the_new_names_last(tmp_path, monkeypatch):
    path, seen = tmp_path / "file.json", []
    path.write_bytes(b"old")
    sync, replace = os.fsync, os.replace

    def noting_sync(file):
        what = "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "file"
        seen.append((f"fsync {what}", path.read_bytes()))
        sync(file)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", lambda a, b: (seen.append(("replace", a.read_bytes())), replace(a, b)))
    write_whole(path, b"new")
    assert seen == [("fsync file", b"old"), ("replace", b"new"), ("fsync folder", b"new")]


def test_what_a_killed_process_of_the_same_number_left_does_not_stop_writing(tmp_path):
    (tmp_path / f".file.json.{os.getpid()}.tmp").write_bytes(b"half of someth")
    write_whole(tmp_path / "file.json", b"new")
    assert os.listdir(tmp_path) == ["file.json"]


def test_json_has_one_spelling_whatever_order_the_keys_came_in():
    assert canonical_json({"b": 1, "a": {"d": [1.5], "c": None}}) == canonical_json(
        {"a": {"c": None, "d": [1.5]}, "b": 1}
    )
    assert canonical_json({"b": 1, "a": []}) == b'{\n  "a": [],\n  "b": 1\n}\n'


@pytest.mark.parametrize("value", [0.1, 1e-300, -0.0, 2**63, "ä\n\u2028", [], {}, None, True, {"a": [{"b": 0.05}]}])
def test_json_holds_every_value_exactly(value):
    assert repr(json.loads(canonical_json(value))) == repr(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("around", [lambda x: x, lambda x: [x], lambda x: {"a": [{"b": x}]}])
def test_json_never_holds_what_is_not_a_number(number, around):
    with pytest.raises(ValueError):
        canonical_json(around(number))


def test_reading_gives_the_value_written(tmp_path):
    write_whole(tmp_path / "file.json", canonical_json({"a": [1, 2.5, "x"]}))
    assert read_json(tmp_path / "file.json") == {"a": [1, 2.5, "x"]}


def refusal(path):
    with pytest.raises(BadInput) as caught:
        read_json(path)
    return str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path):
    path = tmp_path / "file.json"
    assert str(path) in refusal(path)


def test_a_file_torn_anywhere_is_refused_by_name_in_one_line(tmp_path):
    path, whole = tmp_path / "file.json", canonical_json({"a": [1, 2.5, "ä"], "b": {"c": None}})
    for length in range(len(whole) - 1):  # the last byte is the newline
        path.write_bytes(whole[:length])
        assert str(path) in refusal(path)
        assert "\n" not in refusal(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe{}", b"\xe4", b"<<<<<<< ours\n{}\n", b"{}{}", b"[" * 100_000], ids=range(5)
)
def test_a_file_that_is_no_json_is_refused_by_name_in_one_line(content, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    assert str(path) in refusal(path)
    assert "\n" not in refusal(path)


def test_what_cannot_be_read_is_refused_by_name_and_is_not_to_be_deleted(tmp_path):
    """It may be intact."""
    told = refusal(tmp_path)
    assert told.startswith(f"{tmp_path} cannot be read (Is a directory)") and "delete" not in told
