"""`tallystick reconcile` on a real server whose directory of objects was tampered with behind its back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import zstandard

from support.server import Server
from support.target import event

CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "200ms"
[destinations.lake]
type = "object_store"
url = "{lake}"
batch = {{ max_events = 20, max_age = "50ms" }}
[destinations.disk]
type = "file"
path = "out.jsonl"
"""


def test_differences_are_named_and_what_is_missing_is_sent_again(tmp_path: Path) -> None:
    """Two objects and a proof removed, one line altered, one cut out, one object put in: exactly those are found, the missing ones come back."""
    lake = tmp_path / "lake"
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", CONFIGURATION.format(lake=lake)).start()
    try:
        server.send_ok("\n".join(json.dumps(event()) for _ in range(120)).encode())
        server.drain(120, "default", ("lake",))
        assert reconcile(server, 0)["findings"] == []
        objects = sorted(path for path in lake.rglob("default/**/*.zst"))
        assert len(objects) == 6
        before = {path: path.read_bytes() for path in objects}
        objects[0].unlink()
        objects[0].with_name(f"{objects[0].name}.proof").unlink()
        objects[1].unlink()
        objects[2].with_name(f"{objects[2].name}.proof").unlink()
        rewrite(objects[3], lambda lines: [lines[0].replace(b"test.done", b"test.gone"), *lines[1:]])
        rewrite(objects[4], lambda lines: lines[:7] + lines[8:])
        (objects[5].parent / "notes.txt").write_text("left here")
        report = reconcile(server, 4)
        found = sorted((finding["kind"], Path(finding["place"]).name, finding.get("indexes", [])) for finding in report["findings"])
        assert found == [
            ("changed", objects[3].name, [60]),
            ("changed", objects[4].name, [87]),
            ("extra", "notes.txt", []),
            ("missing", objects[0].name, []),
            ("missing", objects[1].name, []),
            ("missing", objects[2].name, []),
        ]
        assert {f["foreign"] for f in report["findings"] if f["kind"] == "changed" and f["indexes"] == [60]} == {1}
        repaired = reconcile(server, 4, "--repair")
        assert {Path(f["place"]).name for f in repaired["findings"] if f.get("is_repaired")} == {path.name for path in objects[:3]}
        assert [path.read_bytes() for path in objects[:3]] == [before[path] for path in objects[:3]]
        assert objects[3].read_bytes() != before[objects[3]]  # nothing is written over what lies there
        (objects[5].parent / "notes.txt").unlink()
        objects[3].unlink()
        objects[4].unlink()
        assert len(reconcile(server, 5, "--tenant", "default")["findings"]) == 2
        reconcile(server, 0, "--repair")
        assert reconcile(server, 0)["findings"] == []
        assert {path: path.read_bytes() for path in objects} == before
        assert "cannot be read back" in server.cli("reconcile", "disk", check=1).stderr
        assert server.http.get("/v1/events", params={"query": "action:tallystick.destination.reconcile"}).json()["events"]
    finally:
        server.close()


def reconcile(server: Server, status: int, *options: str) -> dict[str, Any]:
    """The report of one run that ends with this exit code."""
    report: dict[str, Any] = json.loads(server.cli("reconcile", "lake", "--json", *options, check=status).stdout)
    assert report["cuts"] >= 6
    return report


def rewrite(path: Path, change: Any) -> None:
    """Other lines in the same kind of frame."""
    lines = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines()
    path.write_bytes(zstandard.ZstdCompressor().compress(b"\n".join(change(lines)) + b"\n"))
