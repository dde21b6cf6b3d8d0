"""The log as a running server serves it, fetched tile by tile and checked by Go; and one event's proof by anyone's code."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.generate import numbered
from support.go import run_verifier
from support.server import Server, wait_for

EVENTS = 3_000


def tile_path(number: int, width: int) -> str:
    """C2SP tlog-tiles: groups of three digits, all but the last with x; a partial tile names its width."""
    text = f"{number:03d}"
    while len(text) % 3:
        text = "0" + text
    groups = [text[at : at + 3] for at in range(0, len(text), 3)]
    path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return path if width == 256 else f"{path}.p/{width}"


def fetch(server: Server, path: str, to: Path) -> None:
    """One resource of the log, as bytes, under the same path."""
    answer = server.http.get(path)
    assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_bytes(answer.content)


def fetch_log(server: Server, prefix: str, to: Path) -> int:
    """Checkpoint, every tile of every level, every entry bundle. Returns the size."""
    fetch(server, f"{prefix}/checkpoint", to / "checkpoint")
    size = int((to / "checkpoint").read_text().split("\n")[1])
    level, count = 0, size
    while count:
        for number in range(-(-count // 256)):
            width = min(256, count - number * 256)
            fetch(server, f"{prefix}/tile/{level}/{tile_path(number, width)}", to / f"tile/{level}/{tile_path(number, width)}")
        level, count = level + 1, count // 256
    for number in range(-(-size // 256)):
        width = min(256, size - number * 256)
        fetch(server, f"{prefix}/tile/entries/{tile_path(number, width)}", to / f"tile/entries/{tile_path(number, width)}")
    return size


def test_go_accepts_what_the_server_serves(make_server: Callable[[str], Server], tmp_path: Path, go_verifier: Path) -> None:
    """Go's note and tlog packages accept event log, account log and root log over two heads, and refuse a changed entry."""
    server = make_server(
        '[archive]\nmax_age = "1s"\n[seal]\nroot_interval = "500ms"\n[destinations.disk]\ntype = "file"\npath = "out"\n'
    )
    server.start()
    server.send_ok(numbered(0, 700))
    server.drain(700, destinations=("disk",))
    handle = server.http.get("/v1/tenants").json()["tenants"][0]["handle"]
    logs = (f"/log/{handle}", "/log/root")
    for prefix in logs:
        fetch(server, f"{prefix}/checkpoint", tmp_path / prefix.strip("/") / "old")
    server.send_ok(numbered(700, EVENTS - 700))
    server.drain(EVENTS, destinations=("disk",))
    wait_for(lambda: server.status()["tenants"]["default"]["archived"] >= EVENTS, "the events to be archived")
    for prefix in logs:
        directory = tmp_path / prefix.strip("/")
        assert fetch_log(server, prefix, directory) > 0
        key = (server.keys / "root.vkey").read_text().strip() if prefix == "/log/root" else _log_key(server, tmp_path, prefix)
        done = run_verifier(go_verifier, directory, key, directory / "old")
        assert done.returncode == 0, f"{prefix}: {done.stderr}"
    bundle = tmp_path / logs[0].strip("/") / "tile/entries/001"
    changed = bytearray(bundle.read_bytes())
    changed[20] ^= 1
    bundle.write_bytes(changed)
    directory = tmp_path / logs[0].strip("/")
    done = run_verifier(go_verifier, directory, _log_key(server, tmp_path, logs[0]), directory / "old")
    assert done.returncode != 0


def test_verify_recomputes_what_a_running_server_serves(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """`verify --url` with key and an older head holds for a growing server; without them, or with less to see, it ends with 5."""
    server = make_server('[archive]\nmax_age = "1s"\n[seal]\nroot_interval = "200ms"\n').start()
    server.send_ok(numbered(0, 700))
    server.drain(700)
    _wait_quoted(server, 700)
    heads, key = tmp_path / "seen", str(server.keys / "root.vkey")
    heads.write_text(server.http.get("/log/root/checkpoint").text)
    server.send_ok(numbered(700, 800))
    server.drain(1500)
    _wait_quoted(server, 1500)

    def verify(*arguments: str, check: int, **environment: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(
            server.cli("verify", "--url", server.url, *arguments, check=check, **environment).stdout
        )
        return report

    whole = verify("--public-key", key, "--heads", str(heads), check=0)
    assert (whole["tier"], whole["problems"], whole["not_proven"]) == ("remembered head", [], [])
    assert whole["events"] >= 1500
    bare = verify(check=5)
    assert [text.partition(":")[0] for text in bare["not_proven"]] == ["signer", "freshness"]
    made = server.http.post("/v1/keys", json={"owner": "auditor", "permissions": ["verify"]})
    assert made.status_code in (200, 201), made.text
    blind = verify("--public-key", key, "--heads", str(heads), check=5, TALLYSTICK_KEY=made.json()["secret"])
    assert (blind["events"], blind["problems"]) == (0, [])
    assert any("entries of tallystick.local/log/root are not shown" in text for text in blind["not_proven"])
    (tmp_path / "forged").write_text(heads.read_text().replace("log/root\n", "log/root\n1", 1))
    forged = verify("--public-key", key, "--heads", str(tmp_path / "forged"), check=4)
    assert forged["problems"][0]["place"] == "the remembered head"


def _wait_quoted(server: Server, size: int) -> None:
    """Until the root log quotes a head of the tenant over all of its events."""
    chained = {"tenant": "default", "chain": "true"}
    wait_for(lambda: server.http.get(f"/v1/events/e-{size - 1}/proof", params=chained).status_code == 200, "the root log")


def _log_key(server: Server, directory: Path, prefix: str) -> str:
    """The public key of a tenant's log, as a `key` entry of the root log introduces it."""
    root = directory / "log/root"
    if not (root / "checkpoint").exists():
        fetch_log(server, "/log/root", root)
    origin = f"tallystick.local{prefix}"
    for bundle in sorted(path for path in (root / "tile/entries").rglob("*") if path.is_file()):
        data, at = bundle.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 2], "big")
            entry = json.loads(data[at + 2 : at + 2 + size])
            at += 2 + size
            if entry["type"] == "key" and str(entry["vkey"]).startswith(f"{origin}+"):
                return str(entry["vkey"])
    raise AssertionError(f"no key entry for {origin}")


def test_thirty_lines_of_anybodys_code_check_a_proof(make_server: Callable[[str], Server]) -> None:
    """An exported line hashes to a leaf whose tlog-proof leads to the signed checkpoint's root (RFC 9162 section 2.1.3.2)."""
    server = make_server("").start()
    server.send_ok(numbered(0, 1000))
    server.drain(1000)
    line = server.http.get("/v1/events/e-321").content.strip()
    proof = server.http.get("/v1/events/e-321/proof").text
    head, _, checkpoint = proof.partition("\n\n")
    rows = [row for row in head.split("\n")[1:] if not row.startswith("extra ")]
    index = int(rows[0].removeprefix("index "))
    path = [base64.b64decode(row) for row in rows[1:]]
    size, root = int(checkpoint.split("\n")[1]), base64.b64decode(checkpoint.split("\n")[2])

    found, fn, sn = hashlib.sha256(b"\0" + line).digest(), index, size - 1
    for sibling in path:
        if fn & 1 or fn == sn:
            found = hashlib.sha256(b"\1" + sibling + found).digest()
            while not fn & 1 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            found = hashlib.sha256(b"\1" + found + sibling).digest()
        fn, sn = fn >> 1, sn >> 1
    assert sn == 0
    assert found == root
