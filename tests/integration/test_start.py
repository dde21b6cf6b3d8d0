"""Secure defaults of a start: what `tallystick up` makes, where it listens, and what it refuses before it writes or opens anything."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from support.server import ADMIN_KEY, Server, free_port, wait_for

SMALL = '[data]\nreserve = "1MiB"\n[journal]\nsegment_size = "4MiB"\n'
UP = [sys.executable, "-c", "from tallystick.cli.main import run; run()", "up"]


def run_up(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`tallystick up` in ``directory``, which is expected to end by itself."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK")}
    return subprocess.run(
        [*UP, *arguments],
        cwd=directory,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )


def tree(directory: Path) -> dict[str, tuple[int, str]]:
    """Every file below ``directory`` with its mode and content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(directory))] = (path.lstat().st_mode, content)
    return found


def refuse(directory: Path, code: int, words: str, *arguments: str, **environment: str) -> None:
    """The start ends with ``code``, says why in one line without a traceback, and has written nothing."""
    before = tree(directory)
    done = run_up(directory, *arguments, **environment)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert tree(directory) == before


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory whose server ran once and took an event."""
    server = Server(tmp_path_factory.mktemp("installed"), SMALL)
    try:
        server.start()
        server.send_ok(b'{"action":"a.b","actor":"u"}')
        assert server.stop() == 0
    finally:
        server.close()
    return server.directory


@pytest.fixture
def stopped(installed: Path, tmp_path: Path) -> Iterator[Server]:
    """A copy of that installation, not running."""
    shutil.copytree(installed, tmp_path / "copy")
    server = Server(tmp_path / "copy", SMALL)
    yield server
    server.close()


# --- the first start


@pytest.fixture
def first(tmp_path: Path) -> Iterator[tuple[Path, str, subprocess.Popen[bytes]]]:
    """`tallystick up` without a configuration file and without an admin key given: directory, URL, process."""
    listen = f"127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTICK")}
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen([*UP, "--listen", listen], cwd=tmp_path, env=environment, stdout=out, stderr=out)
    wait_for(lambda: b"is up on" in (tmp_path / "out").read_bytes() or process.poll() is not None, "the first start")
    yield tmp_path, f"http://{listen}", process
    process.terminate()
    assert process.wait(30) == 0


def test_the_first_start_makes_a_private_admin_key(first: tuple[Path, str, subprocess.Popen[bytes]]) -> None:
    """0600, expires within 24 hours, on no output; directories are 0700 and no file opens to others."""
    directory, url, _ = first
    key_file = directory / "data.keys" / "admin.key"
    secret = key_file.read_text().strip()
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    keys = httpx.get(f"{url}/v1/keys", headers={"Authorization": f"Bearer {secret}"}).json()["keys"]
    assert len(keys) == 1
    left = datetime.fromisoformat(keys[0]["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < left <= timedelta(hours=24)
    output = (directory / "out").read_text()
    assert secret not in output
    assert "code=" not in output
    for part in (directory / "data", directory / "data.keys"):
        assert stat.S_IMODE(part.stat().st_mode) == 0o700
        for path in part.rglob("*"):
            assert not path.lstat().st_mode & 0o077, path


def test_it_listens_on_loopback_alone(first: tuple[Path, str, subprocess.Popen[bytes]]) -> None:
    """Every TCP socket that the server's processes listen on is 127.0.0.1."""
    _, _, process = first
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    inodes = set()
    for pid in children:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            name = os.readlink(link)
            if name.startswith("socket:["):
                inodes.add(name[8:-1])
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[9] in inodes]
    assert len(listening) == 1
    assert listening[0].startswith("0100007F:")


def test_a_second_up_ends_at_once(first: tuple[Path, str, subprocess.Popen[bytes]]) -> None:
    """Exit 3 in five seconds, and the first goes on as if nothing had been."""
    directory, url, _ = first
    keys = (directory / "data.keys").rglob("*")
    before = {path: path.read_bytes() for path in keys if path.is_file() and not path.name.startswith("access-use")}
    started = time.monotonic()
    done = run_up(directory, "--listen", f"127.0.0.1:{free_port()}")
    assert time.monotonic() - started < 5
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert httpx.get(f"{url}/healthz/ready").status_code == 200


# --- listening off loopback


@pytest.mark.parametrize("listen", ["0.0.0.0:8420", "[::]:8420", "192.0.2.1:8420"])
def test_plain_http_off_loopback_is_refused(tmp_path: Path, listen: str) -> None:
    """Exit 2 with the two ways out, before anything is made."""
    refuse(tmp_path, 2, "insecure = true", "--listen", listen)


def test_insecure_is_a_word_and_a_warning(make_server: Callable[[str], Server]) -> None:
    """With the word it starts, and says so in the log."""
    port = free_port()
    server = make_server(f'[server]\nlisten = "0.0.0.0:{port}"\ninsecure = true\n{SMALL}')
    server.port, server.url = port, f"http://127.0.0.1:{port}"
    server.http.base_url = server.url
    server.start()
    assert "without TLS" in server.log.read_text()


def certificate(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    key_file.write_bytes(key.private_bytes(*form))
    key_file.chmod(0o600)
    return cert_file, key_file


def test_tls_is_1_2_or_newer(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """Events go in over TLS with HSTS on the answers; TLS 1.1 and plain HTTP get nowhere."""
    cert, key = certificate(tmp_path)
    port = free_port()
    server = make_server(f'[server]\nlisten = "127.0.0.1:{port}"\ntls = {{ cert = "{cert}", key = "{key}" }}\n{SMALL}')
    context = ssl.create_default_context(cafile=str(cert))
    server.http = httpx.Client(
        base_url=f"https://localhost:{port}", headers={"Authorization": f"Bearer {ADMIN_KEY}"}, verify=context, timeout=30
    )
    server.start()
    answer = server.send(b'{"action":"a.b","actor":"u"}')
    assert answer.status_code == 200
    for page in (answer, server.http.get("/v1/status")):
        seconds = page.headers["strict-transport-security"].partition("max-age=")[2].partition(";")[0]
        assert int(seconds) >= 31_536_000
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.load_verify_locations(str(cert))
    old.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError), socket.create_connection(("localhost", port)) as plain:
        old.wrap_socket(plain, server_hostname="localhost")
    with socket.create_connection(("localhost", port), timeout=10) as plain:
        plain.sendall(b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" not in plain.recv(1000)[:20]


# --- what a start refuses


def test_keys_inside_the_data_directory(tmp_path: Path) -> None:
    """Exit 3: every copy of the data would carry its keys."""
    for keys in ("data/keys", "data", "./data/../data/keys"):
        refuse(tmp_path, 3, "inside the data directory", "--keys", keys)
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").symlink_to(tmp_path / "data")
    refuse(tmp_path, 3, "inside the data directory", "--keys", "elsewhere/keys")


def test_a_data_directory_that_others_can_write_to(stopped: Server) -> None:
    """Refused until it is 0700 again."""
    for mode in (0o722, 0o770, 0o777):
        stopped.data.chmod(mode)
        refuse(stopped.directory, 2, "chmod 700", "--config", "tallystick.toml")
    stopped.data.chmod(0o700)
    stopped.start()


def test_a_first_start_makes_the_data_directory_private(tmp_path: Path) -> None:
    """An empty directory with open modes is either refused or closed before anything lies in it."""
    (tmp_path / "data").mkdir(mode=0o777)
    (tmp_path / "data").chmod(0o777)
    process = subprocess.Popen(
        [*UP, "--listen", f"127.0.0.1:{free_port()}"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: (tmp_path / "data" / "FORMAT").exists(), "the installation to be made")
        assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_another_server_name(stopped: Server) -> None:
    """Exit 3: the name is part of every signed head."""
    stopped.config.write_text(f'[server]\nname = "another.example"\nlisten = "127.0.0.1:{stopped.port}"\n')
    refuse(stopped.directory, 3, "belongs to the server", "--config", "tallystick.toml")


def test_data_without_its_keys(stopped: Server) -> None:
    """Exit 3, never a new root key over old data; with the keys back everything is there."""
    stopped.keys.rename(stopped.directory / "away")
    refuse(stopped.directory, 3, "key", "--config", "tallystick.toml")
    (stopped.directory / "away").rename(stopped.keys)
    stopped.start()
    assert stopped.http.get("/v1/events").json()["events"]


def test_a_newer_format(stopped: Server) -> None:
    """Exit 3, and not a byte is written."""
    (stopped.data / "FORMAT").write_text("tallystick 2.0\nname tallystick.local\n")
    refuse(stopped.directory, 3, "newer", "--config", "tallystick.toml")
    (stopped.data / "FORMAT").write_text("something else\n")
    refuse(stopped.directory, 3, "FORMAT", "--config", "tallystick.toml")


def test_a_foreign_directory(tmp_path: Path) -> None:
    """A directory with other people's files is not made an installation."""
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "thesis.txt").write_text("x")
    refuse(tmp_path, 3, "not empty")


def test_a_malformed_admin_key(tmp_path: Path) -> None:
    """Exit 2 with the form, and the value is not repeated."""
    done = run_up(tmp_path, "--listen", f"127.0.0.1:{free_port()}", TALLYSTICK_ADMIN_KEY="hunter2hunter2")
    assert done.returncode == 2
    assert "hunter2" not in done.stdout + done.stderr
    assert "ts_<" in done.stderr


def test_a_port_that_is_taken(stopped: Server) -> None:
    """The start ends with a clear word instead of trying for ever."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stopped.port))
        taken.listen()
        done = run_up(stopped.directory, "--config", "tallystick.toml")
    assert done.returncode in (1, 2, 3)
    assert str(stopped.port) in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout
