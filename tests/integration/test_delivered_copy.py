"""What a real server delivered to a directory, verified by itself with the server gone: `tallystick verify --delivered`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.server import Server, wait_for
from support.target import event
from tallystick.journal.tenants import TenantRegistry

CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "200ms"
[destinations.lake]
type = "object_store"
url = "{lake}"
batch = {{ max_events = 20, max_age = "50ms" }}
where = "NOT action:tallystick.*"
"""


def test_a_copy_proves_itself(tmp_path: Path) -> None:
    """Intact it passes against the log's key and a head seen earlier; a changed line, a lost object and a lost tail are found."""
    lake = tmp_path / "lake"
    lake.mkdir()
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", CONFIGURATION.format(lake=lake)).start()
    try:
        for _ in range(3):
            server.send_ok("\n".join(json.dumps(event()) for _ in range(25)).encode())
        server.drain(75, "default", ("lake",))
        tenant = TenantRegistry(server.data).get("default")
        assert tenant is not None
        handle = tenant.handle
        (tmp_path / "head").write_text(server.http.get(f"/log/{handle}/checkpoint").text)
        entries = server.data / "trees" / "root" / "entries"
        wait_for(lambda: keys_of(entries, handle), "the root log to introduce the log's key")
        (tmp_path / "key").write_text(keys_of(entries, handle)[0])
    finally:
        server.stop()

    def status_of(copy: Path) -> tuple[int, str]:
        done = server.cli(
            "verify", "--delivered", str(copy), "--public-key", str(tmp_path / "key"), "--heads", str(tmp_path / "head"), check=None
        )
        return done.returncode, done.stdout + done.stderr

    objects = sorted(path.relative_to(lake) for path in lake.rglob("*") if path.is_file() and path.suffix != ".proof")
    assert len(objects) >= 3
    assert status_of(lake)[0] == 0, status_of(lake)[1]
    for place, hurt in ((objects[1], "changed"), (objects[0], "lost"), (objects[-1], "cut off")):
        copy = tmp_path / hurt.replace(" ", "-")
        shutil.copytree(lake, copy)
        if hurt == "changed":
            data = bytearray((copy / place).read_bytes())
            data[len(data) // 2] ^= 1
            (copy / place).write_bytes(data)
        else:
            (copy / place).unlink()
            if hurt == "cut off":
                (copy / f"{place}.proof").unlink()
        code, said = status_of(copy)
        assert code == 4, (hurt, said)
        assert hurt == "cut off" or place.name in said
    server.close()


def keys_of(entries: Path, handle: str) -> list[str]:
    """The public key of a tenant's event log, as the root log introduces it."""
    found = [json.loads(line) for line in entries.read_text().splitlines()] if entries.exists() else []
    return [entry["vkey"] for entry in found if entry["type"] == "key" and entry["name"].endswith(f"/log/{handle}")]
