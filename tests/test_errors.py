"""lib/errors.py: how a process ends when it cannot go on."""

import errno
import os
import subprocess
import sys

import pytest

from lib.errors import BadInput, Stopped, TryAgain, ending_of, errors_exit, status_of


@pytest.mark.parametrize(
    ("error", "status"), [(BadInput("bad"), 2), (TryAgain("busy"), 75), (Stopped("stopped", 15), 143)]
)
def test_an_error_ends_the_process_in_one_line_with_its_status(error, status, capsys):
    with pytest.raises(SystemExit) as ending, errors_exit("stage"):
        raise error
    assert (ending.value.code, capsys.readouterr().err) == (status, f"stage: {error}\n")


def test_ctrl_c_ends_a_stage_that_listens_to_no_signal_in_one_line(capsys):
    with pytest.raises(SystemExit) as ending, errors_exit("download"):
        raise KeyboardInterrupt
    assert (ending.value.code, capsys.readouterr().err) == (130, "download: stopped by Ctrl-C\n")


def test_what_an_error_quotes_cannot_break_its_line_or_speak_to_the_terminal():
    assert str(BadInput("a\nb\x1b[2J")) == "a\\nb\\x1b[2J"


@pytest.mark.parametrize("lines", [1, 100_000], ids=["written as it ends", "written meanwhile"])
def test_where_nobody_reads_the_output_any_more_it_ends_without_a_word(lines):
    code = f"from lib.errors import errors_exit\nwith errors_exit('x'):\n  for _ in range({lines}): print('line')"
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (process.stderr, process.returncode) == (b"", 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
@pytest.mark.parametrize("lines", [1, 100_000], ids=["written as it ends", "written meanwhile"])
def test_where_the_output_goes_to_a_full_disk_one_line_says_so(lines):
    code = f"from lib.errors import errors_exit\nwith errors_exit('x'):\n  for _ in range({lines}): print('line')"
    with open("/dev/full", "wb") as full:
        process = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    told = "x: No space left on device, most likely for its output: free some space\n"
    assert (process.stderr, process.returncode) == (told, 2)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_where_errors_go_to_the_full_disk_too_the_status_is_the_same():
    code = "from lib.errors import errors_exit\nwith errors_exit('x'): print('line')"
    for unbuffered in ("", "1"):
        environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
        with open("/dev/full", "wb") as full:
            run = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=full, env=environment)
        assert run.returncode == 2


def test_another_failure_of_a_file_is_not_taken_for_the_outputs():
    for error in (FileNotFoundError(2, "missing", "file"), OSError(errno.ENOSPC, "full", "file"), ConnectionError()):
        with pytest.raises(OSError) as raised, errors_exit("x"):
            raise error
        assert raised.value is error


def test_an_output_that_was_closed_from_the_start_is_none_to_write_to():
    code = "from lib.errors import errors_exit\nwith errors_exit('x'): print('line')"
    command = ["sh", "-c", '"$0" -c "$1" >&-', sys.executable, code]
    process = subprocess.run(command, stderr=subprocess.PIPE)
    assert (process.stderr, process.returncode) == (b"", 0)


def test_what_the_terminals_encoding_lacks_is_printed_otherwise():
    """A table has dashes that Latin-1 has not; the results are written by then."""
    code = "from lib.errors import errors_exit\nwith errors_exit('x'): print('a \u2013 b')"
    environment = {"PYTHONIOENCODING": "latin-1"}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
    assert process.stdout == b"a ? b\n"


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (2, "exit status 2"),
        (-15, "killed by SIGTERM"),
        (-40, "killed by signal 40"),
        (-9, "killed by SIGKILL (was memory short?)"),
    ],
)
def test_how_a_process_ended_is_told_by_its_status(status, told):
    assert ending_of(status).endswith(told)


@pytest.mark.parametrize(("failures", "status"), [([75], 75), ([75, 2], 2), ([1, 75], 1), ([2, 2], 2)])
def test_of_several_failures_that_to_be_mended_first_decides(failures, status):
    assert status_of(failures) == status
