"""lib/obtain.py: every source gives the folder, every trouble leaves things as they were. Servers are 127.0.0.1's."""

import bz2
import gc
import gzip
import hashlib
import http.server
import io
import lzma
import os
import shutil
import socket
import ssl
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme

from lib import cifar10, obtain, synthetic
from lib.card import VALIDATION
from lib.errors import BadInput
from stages import download

PATH = "/cifar-10-python.tar.gz"
Route = Callable[[http.server.BaseHTTPRequestHandler], None]

# Pooch does not close a response that goes wrong; the garbage collector does, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


# A small world: the official files and archive are the fixture's, the synthetic set has few images.


@pytest.fixture(autouse=True)
def small_synthetic(monkeypatch: pytest.MonkeyPatch) -> None:
    generate = synthetic.generate
    monkeypatch.setattr(synthetic, "generate", lambda seed: generate(seed, 20))


@pytest.fixture(autouse=True)
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy of this machine stands in between, and nothing but a test's own server answers."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(obtain, "OFFICIAL_ADDRESS", "https://127.0.0.1:1" + PATH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the data set is wanted; not there yet."""
    return tmp_path / "data" / "cifar10"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where a downloaded archive is kept; not there yet."""
    return tmp_path / "cache" / "cifar-10-python.tar.gz"


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": lambda content: gzip.compress(content, compresslevel=1, mtime=0),
    "bz2": lambda content: bz2.compress(content, 1),
    "xz": lambda content: lzma.compress(content, preset=0),
    "none": lambda content: content,
}


def archive_of(official: Path, extra: Sequence[tarfile.TarInfo] = (), compression: str = "gz") -> bytes:
    """An archive of the official files, with other members before them; the same bytes each time."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in extra:
            tar.addfile(member, io.BytesIO(b"evil" * 2) if member.isreg() else None)
        for path in sorted((official / cifar10.FOLDER).iterdir()):
            member = tarfile.TarInfo(f"{cifar10.FOLDER}/{path.name}")
            member.size = path.stat().st_size
            tar.addfile(member, io.BytesIO(path.read_bytes()))
    return COMPRESSIONS[compression](buffer.getvalue())


@pytest.fixture
def archive(official: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The official archive's content."""
    content = archive_of(official)
    monkeypatch.setattr(obtain, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    return content


def tree(path: Path) -> dict[str, bytes | None]:
    """Everything below a path: files with their content, folders and links with None."""
    return {
        str(each.relative_to(path)): each.read_bytes() if each.is_file() and not each.is_symlink() else None
        for each in path.rglob("*")
    }


def assert_is_cifar10(folder: Path, official: Path) -> None:
    """The folder is the official one, file by file, and nothing lies in or next to it that does not belong there."""
    assert tree(folder) == tree(official)
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]


# Servers.


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


class Server:
    """A web server that answers each path as a route says, and keeps what was asked for."""

    def __init__(self, routes: dict[str, Route], context: ssl.SSLContext | None) -> None:
        self.requests: list[str] = []
        self.closing = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                try:
                    routes[self.path](self)
                except OSError:
                    self.close_connection = True  # the client went away: it had seen enough

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = False  # closing waits for them

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that breaks the connection off

        self.server = Quiet(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.root = f"{'https' if context else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        self.address = self.root + PATH
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


Serve = Callable[..., Server]


@pytest.fixture
def serve(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start servers, by their routes; https ones have a certificate that requests trusts."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    servers: list[Server] = []

    def start(routes: dict[str, Route] | Route, tls: bool = True) -> Server:
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("127.0.0.1").configure_cert(context)
        servers.append(Server(routes if isinstance(routes, dict) else {PATH: routes}, context))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    gc.collect()  # here, where the warning is expected, and not in the middle of another test


def sending(content: bytes, claimed: int | None = None) -> Route:
    """Answer with a content, which may be less than the header claims; then close."""

    def route(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(claimed or len(content)))
        request.end_headers()
        request.wfile.write(content)
        request.close_connection = True

    return route


def redirecting(to: str) -> Route:
    def route(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", to)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return route


def failing(status: int) -> Route:
    def route(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_error(status)

    return route


def in_turn(*routes: Route) -> Route:
    """A route for the first request, one for the second, ..."""
    left = list(routes)
    return lambda request: left.pop(0)(request)


@pytest.fixture(params=["before the handshake", "after the request"])
def silent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, serve: Serve) -> Iterator[str]:
    """The address of a server that takes a connection and then says nothing."""
    monkeypatch.setattr(obtain, "SECONDS_TO_ANSWER", 0.3)
    if request.param == "after the request":
        server = serve(lambda _: server.closing.wait(10))
        yield server.address
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            yield f"https://127.0.0.1:{listener.getsockname()[1]}{PATH}"


# Sources.


@pytest.mark.parametrize("wanted", ["cifar10", VALIDATION, "auto"])
@pytest.mark.parametrize("kind", ["the folder", "the batches' folder", *COMPRESSIONS])
def test_a_source_on_disk_gives_the_folder(
    kind: str, wanted: str, folder: Path, cache: Path, official: Path, tmp_path: Path
) -> None:
    source = tmp_path / "my.tar.gz"
    if kind in COMPRESSIONS:
        source.write_bytes(archive_of(official, compression=kind))
    else:
        source = official / cifar10.FOLDER if kind == "the batches' folder" else official
    before = tree(official)
    assert obtain.obtain(wanted, folder, str(source), cache) == "cifar10"
    assert_is_cifar10(folder, official)
    assert tree(official) == before
    assert not cache.exists()
    assert cifar10.load(folder, "cifar10", 200, 40).name == "cifar10"


@pytest.mark.parametrize("wanted", ["cifar10", "auto"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "official"])
def test_an_https_address_gives_the_folder_and_the_archive_is_kept(
    named: bool,
    wanted: str,
    folder: Path,
    cache: Path,
    official: Path,
    archive: bytes,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = serve(sending(archive)).address
    if not named:
        monkeypatch.setattr(obtain, "OFFICIAL_ADDRESS", address)
    assert obtain.obtain(wanted, folder, address if named else None, cache) == "cifar10"
    assert_is_cifar10(folder, official)
    assert tree(cache.parent) == {cache.name: archive}


def test_a_redirect_from_https_to_https_is_followed(
    folder: Path, cache: Path, official: Path, archive: bytes, serve: Serve
) -> None:
    there = serve({"/there": sending(archive)})
    here = serve(redirecting(there.root + "/there"))
    assert obtain.obtain("cifar10", folder, here.address, cache) == "cifar10"
    assert_is_cifar10(folder, official)


def test_synthetic_needs_no_source(folder: Path, cache: Path, official: Path) -> None:
    assert obtain.obtain("synthetic", folder, "/nowhere", cache) == "synthetic"
    assert cifar10.load(folder, "synthetic", 100, 20).name == "synthetic"
    assert [each.name for each in folder.parent.iterdir()] == [folder.name]


def test_synthetic_is_the_same_wherever_it_is_made(tmp_path: Path, cache: Path) -> None:
    for name in ("one", "other"):
        obtain.obtain("synthetic", tmp_path / name, None, cache)
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


# An archive is not trusted.


def hostile_members(absolute: Path) -> list[tarfile.TarInfo]:
    members = []
    for name in ("../evil", str(absolute), f"{cifar10.FOLDER}/../../evil", f"{cifar10.FOLDER}/extra"):
        members.append(tarfile.TarInfo(name))
        members[-1].size = 8
    for kind, name, to in (
        (tarfile.SYMTYPE, "link", "/"),
        (tarfile.SYMTYPE, f"{cifar10.FOLDER}/link", "../.."),
        (tarfile.LNKTYPE, "hard", "../evil"),
        (tarfile.FIFOTYPE, "fifo", ""),
    ):
        members.append(tarfile.TarInfo(name))
        members[-1].type, members[-1].linkname = kind, to
    return members


def test_hostile_members_of_an_archive_leave_nothing_behind(
    folder: Path, cache: Path, official: Path, tmp_path: Path
) -> None:
    source = tmp_path / "my.tar.gz"
    source.write_bytes(archive_of(official, hostile_members(tmp_path / "evil")))
    with tarfile.open(source) as tar:
        assert {"../evil", str(tmp_path / "evil"), "link", "hard"} < set(tar.getnames())
    before = tree(tmp_path)
    obtain.obtain("cifar10", folder, str(source), cache)
    assert_is_cifar10(folder, official)
    shutil.rmtree(folder.parent)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("to", ["the real file", "itself"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_batch_that_is_not_a_regular_file_is_refused(
    kind: bytes, to: str, folder: Path, cache: Path, official: Path, tmp_path: Path
) -> None:
    member = tarfile.TarInfo(f"{cifar10.FOLDER}/data_batch_1")
    real = str(official / cifar10.FOLDER / "data_batch_1")
    member.type, member.linkname = kind, real if to == "the real file" else "data_batch_1"
    source = tmp_path / "my.tar.gz"
    with tarfile.open(source, "w:gz") as tar:
        tar.addfile(member)
    with pytest.raises(BadInput):
        obtain.obtain("cifar10", folder, str(source), cache)
    assert list(folder.parent.iterdir()) == []


def test_a_member_that_claims_to_be_huge_is_not_read_on(
    folder: Path, cache: Path, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "MOST_BYTES", 1000)
    source = tmp_path / "my.tar.gz"
    source.write_bytes(archive_of(official))
    with pytest.raises(BadInput, match="data_batch_1 has 1,000 bytes"):
        obtain.obtain("cifar10", folder, str(source), cache)


# Addresses are https, and stay so.


def test_an_http_address_is_refused_without_asking_it(folder: Path, cache: Path, archive: bytes, serve: Serve) -> None:
    server = serve(sending(archive), tls=False)
    with pytest.raises(BadInput, match="not an https address") as caught:
        obtain.obtain("auto", folder, server.address, cache)
    assert server.address in str(caught.value)
    assert server.requests == []
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("detour", [False, True], ids=["ends in http", "passes through http"])
def test_https_that_leads_to_http_is_refused(
    detour: bool, folder: Path, cache: Path, archive: bytes, serve: Serve
) -> None:
    secure = serve(sending(archive))
    plain = serve(redirecting(secure.address) if detour else sending(archive), tls=False)
    server = serve(redirecting(plain.address))
    with pytest.raises(BadInput, match="which is not https") as caught:
        obtain.obtain("cifar10", folder, server.address, cache)
    assert server.address in str(caught.value)
    assert not cache.exists()
    assert list(folder.parent.iterdir()) == []


def test_a_server_whose_certificate_is_not_trusted_is_not_used(
    folder: Path, cache: Path, archive: bytes, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(sending(archive))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    with pytest.raises(BadInput, match="SSLError"):
        obtain.obtain("cifar10", folder, server.address, cache)
    assert server.requests == []


def test_a_certificate_bundle_that_is_not_there_is_named(
    folder: Path, cache: Path, archive: bytes, serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(sending(archive))
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "missing.pem"))
    with pytest.raises(BadInput, match="out of reach"):
        obtain.obtain("cifar10", folder, server.address, cache)


def test_an_address_that_can_be_none_is_out_of_reach(folder: Path, cache: Path) -> None:
    with pytest.raises(BadInput, match="out of reach"):  # at once; a label of a host's name has 63 letters at most
        obtain.obtain("cifar10", folder, f"https://{'x' * 64}.invalid{PATH}", cache)


# Out of reach.


def test_auto_takes_the_synthetic_set_when_the_official_server_is_silent(
    silent: str, folder: Path, cache: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "OFFICIAL_ADDRESS", silent)
    assert obtain.obtain("auto", folder, None, cache) == "synthetic"
    assert cifar10.load(folder, "auto", 100, 20).name == "synthetic"


@pytest.mark.parametrize("wanted", ["cifar10", VALIDATION])
def test_cifar10_is_strict_when_the_official_server_is_silent(
    wanted: str, silent: str, folder: Path, cache: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(obtain, "OFFICIAL_ADDRESS", silent)
    with pytest.raises(BadInput, match="CIFAR-10 is not available: .*CIFAR10_SOURCE") as caught:
        obtain.obtain(wanted, folder, None, cache)
    assert silent in str(caught.value)
    assert list(folder.parent.iterdir()) == []


def test_a_named_server_must_answer(silent: str, folder: Path, cache: Path, official: Path) -> None:
    with pytest.raises(BadInput) as caught:
        obtain.obtain("auto", folder, silent, cache)
    assert silent in str(caught.value)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("way", ["refused", "404", "503"])
def test_a_server_that_refuses_is_out_of_reach(
    way: str, folder: Path, cache: Path, official: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way != "refused":  # nobody listens at the address as it is
        monkeypatch.setattr(obtain, "OFFICIAL_ADDRESS", serve(failing(int(way))).address)
    with pytest.raises(BadInput, match="out of reach"):
        obtain.obtain("cifar10", folder, None, cache)
    assert obtain.obtain("auto", folder, None, cache) == "synthetic"


# Downloads that go wrong.


@pytest.mark.parametrize("wanted", ["cifar10", "auto"])
@pytest.mark.parametrize("named", [True, False], ids=["named", "official"])
@pytest.mark.parametrize("trouble", ["truncated", "wrong", "empty", "fails", "redirects"])
def test_a_download_that_goes_wrong_changes_nothing(
    trouble: str,
    named: bool,
    wanted: str,
    folder: Path,
    cache: Path,
    archive: bytes,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also for auto: whoever can reach CIFAR-10 shall not silently get something else."""
    route = {
        "truncated": sending(archive[: len(archive) // 2], claimed=len(archive)),
        "wrong": sending(archive[:-1] + bytes([archive[-1] ^ 1])),
        "empty": sending(b""),
        "fails": failing(500),
        "redirects": redirecting("http://127.0.0.1:1/"),
    }[trouble]
    server = serve(in_turn(sending(archive), route))  # the first request only asks whether it is there
    if not named:
        monkeypatch.setattr(obtain, "OFFICIAL_ADDRESS", server.address)
    obtain.obtain("synthetic", folder, None, cache)
    before = tree(folder.parent)
    with pytest.raises(BadInput, match="could not be downloaded whole .*CIFAR10_SOURCE") as caught:
        obtain.obtain(wanted, folder, server.address if named else None, cache)
    assert server.address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 2
    assert tree(folder.parent) == before
    assert not cache.parent.exists() or list(cache.parent.iterdir()) == []


def test_the_second_attempt_works_after_a_truncated_download(
    folder: Path, cache: Path, official: Path, archive: bytes, serve: Serve
) -> None:
    server = serve(in_turn(sending(archive), sending(archive[:9], len(archive)), sending(archive), sending(archive)))
    with pytest.raises(BadInput):
        obtain.obtain("cifar10", folder, server.address, cache)
    assert obtain.obtain("cifar10", folder, server.address, cache) == "cifar10"
    assert_is_cifar10(folder, official)


# The cached archive.


def test_a_whole_cached_archive_is_used_without_another_download(
    folder: Path, cache: Path, official: Path, archive: bytes, serve: Serve
) -> None:
    server = serve(in_turn(sending(archive)))  # would fail at a second request
    cache.parent.mkdir()
    cache.write_bytes(archive)
    assert obtain.obtain("cifar10", folder, server.address, cache) == "cifar10"
    assert_is_cifar10(folder, official)
    assert len(server.requests) <= 1


@pytest.mark.parametrize("wanted", ["cifar10", "auto"])
def test_a_whole_cached_archive_is_used_without_a_network(
    wanted: str, folder: Path, cache: Path, official: Path, archive: bytes
) -> None:
    cache.parent.mkdir()
    cache.write_bytes(archive)
    assert obtain.obtain(wanted, folder, None, cache) == "cifar10"
    assert_is_cifar10(folder, official)


def test_a_damaged_cached_archive_is_downloaded_anew(
    folder: Path, cache: Path, official: Path, archive: bytes, serve: Serve
) -> None:
    cache.parent.mkdir()
    cache.write_bytes(archive[:-1])
    assert obtain.obtain("cifar10", folder, serve(sending(archive)).address, cache) == "cifar10"
    assert_is_cifar10(folder, official)
    assert tree(cache.parent) == {cache.name: archive}


# Sources that are damaged.


def copy_of(official: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(official, tmp_path / "source"))


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_relative_source_is_looked_for_where_the_user_is_and_not_where_the_experiment_runs(
    official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(official, tmp_path / "project" / "images")
    experiment = tmp_path / "project/.dvc/tmp/exps/standalone/tmp1"
    (experiment / "plan").mkdir(parents=True)
    (experiment / "plan/study.json").write_text('{"dataset": "cifar10"}')
    monkeypatch.chdir(experiment)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "project"))
    monkeypatch.setenv("CIFAR10_SOURCE", "images")
    monkeypatch.setattr("sys.argv", ["download"])
    download.main()
    assert "data/cifar10 holds the cifar10 data set" in capsys.readouterr().out
    assert cifar10.verified_files(Path("data/cifar10")).dataset == "cifar10"


@pytest.mark.parametrize("file", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
@pytest.mark.parametrize("as_archive", [False, True], ids=["folder", "archive"])
@pytest.mark.parametrize("damage", [flip_bit, Path.unlink])
def test_a_damaged_source_is_an_error_that_names_source_and_file(
    damage: Callable[[Path], None],
    as_archive: bool,
    file: str,
    folder: Path,
    cache: Path,
    official: Path,
    tmp_path: Path,
) -> None:
    source = copy_of(official, tmp_path)
    damage(source / cifar10.FOLDER / file)
    if as_archive:
        content = archive_of(source)
        source = tmp_path / "my.tar.gz"
        source.write_bytes(content)
    obtain.obtain("synthetic", folder, None, cache)
    before = tree(folder.parent)
    with pytest.raises(BadInput, match="CIFAR10_SOURCE") as caught:
        obtain.obtain("auto", folder, str(source), cache)
    assert str(source) in str(caught.value)
    assert file in str(caught.value)
    assert tree(folder.parent) == before


@pytest.mark.parametrize("kind", ["missing", "empty folder", "empty file", "text", "cut archive"])
def test_a_source_that_is_nothing_of_the_kind_is_an_error_that_names_it(
    kind: str, folder: Path, cache: Path, archive: bytes, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    contents = {"empty file": b"", "text": b"not an archive", "cut archive": archive[: len(archive) // 2]}
    if kind == "empty folder":
        source.mkdir()
    elif kind != "missing":
        source.write_bytes(contents[kind])
    with pytest.raises(BadInput, match="CIFAR10_SOURCE") as caught:
        obtain.obtain("auto", folder, str(source), cache)
    assert str(source) in str(caught.value)
    assert list(folder.parent.iterdir()) == []


@pytest.mark.parametrize("compression", ["gz", "bz2", "xz"])
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_an_archive_whose_compressed_data_are_damaged_is_an_error_that_names_it(
    compression: str,
    place: float,
    folder: Path,
    cache: Path,
    official: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    content = bytearray(archive_of(official, compression=compression))
    start = int(len(content) * place)
    content[start : start + 64] = b"\xff" * 64
    source = tmp_path / "my.tar.gz"
    source.write_bytes(content)
    with pytest.raises(BadInput, match="CIFAR10_SOURCE") as caught:
        obtain.obtain("cifar10", folder, str(source), cache)
    assert str(source) in str(caught.value)
    assert list(folder.parent.iterdir()) == []


# What is already there.


@pytest.mark.parametrize("source", ["/nowhere", None, "http://127.0.0.1/"])
@pytest.mark.parametrize("wanted", ["cifar10", "auto"])
def test_an_intact_folder_stays_untouched_and_the_source_is_not_looked_at(
    wanted: str, source: str | None, cache: Path, official: Path
) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (official, *official.rglob("*"))}
    assert obtain.obtain(wanted, official, source, cache) == "cifar10"
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in (official, *official.rglob("*"))} == before


def test_a_stand_in_is_that_of_the_code_as_it_is_now(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain.obtain("synthetic", folder, None, cache)
    before = tree(folder.parent)
    obtain.obtain("synthetic", folder, None, cache)
    assert tree(folder.parent) == before
    monkeypatch.setattr(obtain, "SYNTHETIC_SEED", 1)
    obtain.obtain("synthetic", folder, None, cache)
    assert tree(folder.parent) != before


def test_a_data_set_of_ones_own_is_an_entry(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(obtain.STAND_INS, "mine", lambda: (synthetic.generate(3), list("abcdefghij")))
    assert obtain.obtain("mine", folder, None, cache) == "mine"
    assert cifar10.load(folder, "mine", 1, 1).name == "mine"


def test_where_the_folder_cannot_be_made_it_is_named_in_one_line(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(BadInput, match=r"data: .*: free some space, fix the permissions, or move away"):
        obtain.obtain("synthetic", tmp_path / "data" / "cifar10", None, cache)


@pytest.mark.parametrize("damage", [flip_bit, Path.unlink])
def test_a_damaged_folder_is_replaced(
    damage: Callable[[Path], None], folder: Path, cache: Path, official: Path
) -> None:
    shutil.copytree(official, folder)
    (folder / "left over").write_text("of something else")
    damage(folder / cifar10.FOLDER / "data_batch_3")
    assert obtain.obtain("cifar10", folder, str(official), cache) == "cifar10"
    assert_is_cifar10(folder, official)


def test_a_damaged_synthetic_folder_is_replaced(folder: Path, cache: Path) -> None:
    obtain.obtain("synthetic", folder, None, cache)
    before = tree(folder.parent)
    flip_bit(folder / cifar10.FOLDER / "data_batch_3")
    obtain.obtain("synthetic", folder, None, cache)
    assert tree(folder.parent) == before


def test_cifar10_takes_the_place_of_the_synthetic_set_once_it_can_be_had(
    folder: Path, cache: Path, official: Path
) -> None:
    obtain.obtain("synthetic", folder, None, cache)
    assert obtain.obtain("auto", folder, str(official), cache) == "cifar10"
    assert_is_cifar10(folder, official)


def test_the_synthetic_set_takes_the_place_of_cifar10_when_it_is_asked_for(
    folder: Path, cache: Path, official: Path
) -> None:
    shutil.copytree(official, folder)
    assert obtain.obtain("synthetic", folder, str(official), cache) == "synthetic"
    assert cifar10.load(folder, "synthetic", 1, 1).name == "synthetic"


@pytest.mark.parametrize(
    "renames_that_work",
    [0, 1],
)
def test_the_old_folder_stays_when_the_new_one_cannot_take_its_place(
    renames_that_work: int, folder: Path, cache: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain.obtain("synthetic", folder, None, cache)
    before = tree(folder.parent)
    rename, calls = os.rename, 0

    def breaking(*arguments: Any) -> None:
        nonlocal calls
        if arguments[0] != folder and arguments[1] != folder:
            return rename(*arguments)
        calls += 1
        if calls == renames_that_work + 1:
            raise OSError("no")
        rename(*arguments)

    monkeypatch.setattr(os, "rename", breaking)
    with pytest.raises((OSError, BadInput)):
        obtain.obtain("cifar10", folder, str(official), cache)
    assert calls > renames_that_work
    assert tree(folder.parent) == before


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError, RuntimeError])
def test_an_interruption_leaves_the_old_folder_and_no_scratch_folder(
    interruption: type[BaseException], folder: Path, cache: Path, official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    obtain.obtain("synthetic", folder, None, cache)
    before = tree(folder.parent)
    write, written = obtain.write_whole, 0

    def interrupted(path: Path, content: bytes) -> None:
        nonlocal written
        written += 1
        if written == 4:
            raise interruption
        write(path, content)

    monkeypatch.setattr(obtain, "write_whole", interrupted)
    with pytest.raises(interruption):
        obtain.obtain("cifar10", folder, str(official), cache)
    assert tree(folder.parent) == before


@pytest.mark.parametrize("there", [False, True])
def test_what_a_killed_process_left_is_swept_once_there_is_a_sound_folder(
    there: bool, folder: Path, cache: Path, official: Path, tmp_path: Path
) -> None:
    if there:  # then nothing is made any more
        obtain.obtain("cifar10", folder, str(official), cache)
    left = [folder.parent / name for name in (".cifar10-killed", ".cifar10-at_work", "cifar10-mine")]
    left.append(cache.parent / ".cifar10-download")
    for each in left:
        (each / "new").mkdir(parents=True)
        if "at_work" not in each.name:
            os.utime(each, (0, 0))
    if not there:
        with pytest.raises(BadInput):
            obtain.obtain("cifar10", folder, str(tmp_path / "nowhere"), cache)
        assert all(each.exists() for each in left)  # the only copy of the data may be in one
    obtain.obtain("cifar10", folder, str(official), cache)
    assert {path.name for path in folder.parent.iterdir()} == {"cifar10", "cifar10-mine", ".cifar10-at_work"}
    assert list(cache.parent.iterdir()) == []


def test_a_download_goes_to_a_folder_that_would_be_swept_if_it_were_killed(
    folder: Path, cache: Path, archive: bytes, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a file of pooch's naming beside the archive, which nothing would know again."""
    found: list[str] = []
    monkeypatch.setattr(obtain.pooch, "retrieve", lambda *arguments, **_: found.append(Path(arguments[3]).name))
    with pytest.raises(BadInput):  # nothing was downloaded
        obtain.obtain("cifar10", folder, serve(sending(archive)).address, cache)
    assert [name.startswith(obtain.SCRATCH) for name in found] == [True]


def test_a_folder_that_may_not_be_looked_into_is_named_in_a_line(cache: Path, official: Path, tmp_path: Path) -> None:
    """As one of another user's is; root may look into any, so here it is a name that no file may have."""
    folder = tmp_path / ("x" * 300)
    with pytest.raises(BadInput, match="File name too long: free some space"):
        cifar10.verified_files(folder)
    with pytest.raises(BadInput, match="File name too long"):
        obtain.obtain("cifar10", folder, str(official), cache)
