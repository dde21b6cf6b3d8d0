"""A running server is backed up and restored elsewhere, as an operator does it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from support.server import Server, wait_for
from support.target import event
from tallystick.archive.backup.ledger import LedgerFile

CONFIGURATION = """
[data]
reserve = "1MiB"
free_min = "1MiB"
[journal]
segment_size = "4MiB"
[seal]
root_interval = "100ms"
[archive]
max_age = "1s"
[backup]
store = "store"
"""


def test_a_backup_of_a_running_server_is_restored_and_goes_on(tmp_path: Path) -> None:
    """Lost data directory, keys kept: the same answers, the same counts, the log goes on, verify holds."""
    server = Server(tmp_path, CONFIGURATION).start()
    try:
        body = "\n".join(json.dumps(event(action="keep.this", id=f"k{number}")) for number in range(500)).encode()
        server.send_ok(body)
        wait_for(lambda: server.status()["tenants"]["default"]["archived"] == 500, "the archive")
        server.send_ok(json.dumps(event(action="not.archived.yet", id="late")).encode())
        server.cli("backup", "now", "--config", str(server.config), "--json")  # beside the running server
        server.stop()
        made = json.loads(server.cli("backup", "now", "--config", str(server.config), "--json").stdout)
        assert made["root_size"] > 0
        shutil.move(server.data, tmp_path / "lost")
        where = ("--from", str(tmp_path / "store"), "--data", str(server.data), "--keys", str(server.keys))
        done = json.loads(server.cli("restore", *where, "--json").stdout)
        assert done["id"] == made["id"]
        server.start()
        found = server.http.get("/v1/events", params={"tenant": "default", "query": "action:keep.*", "limit": 1000}).json()
        assert len({item["id"] for item in found["events"]}) == 500
        assert server.send_ok(body)["duplicates"] == 500
        server.send_ok(json.dumps(event(action="after.restore")).encode())
        wait_for(lambda: server.status()["tenants"]["default"]["sealed"] == 502, "sealing")
        drill = json.loads(server.cli("drill", "restore", "--config", str(server.config), "--json").stdout)
        assert drill["problems"] == []
        assert drill["events"] >= 500
        wait_for(lambda: not LedgerFile(server.data).load().pending, "the drill's entry in the account")
        assert server.status()["backups"]["drills"]["restore"]["backup"] == drill["backup"]
        assert "key store" in server.status()["warnings"][0]
        # The backup is older than the log now: put over it, it would go back in time.
        server.stop()
        shutil.move(server.data, tmp_path / "newer")
        refused = server.cli("restore", *where, "--to", made["id"], check=4)
        assert "was signed" in refused.stderr
        assert not server.data.exists()
        shutil.move(tmp_path / "newer", server.data)
    finally:
        server.stop()
    server.verify()
    server.close()
