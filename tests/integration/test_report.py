"""A report over a real server: its counts are those of searches, its proofs check offline, its page needs nothing from outside."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

from support.server import Server, wait_for
from tallystick.evidence.entry import event_hashes
from tallystick.evidence.proof import check_proof, parse_proof

CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "200ms"
heartbeat = "1s"
[delivery]
statement_interval = "1s"
[destinations.disk]
type = "file"
path = "out.jsonl"
[reviews.logins]
tenant = "default"
query = "category:authentication"
every = "1s"
"""
KINDS = (
    {"action": "user.login", "category": "authentication", "outcome": "success"},
    {"action": "user.login", "category": "authentication", "outcome": "failure"},
    {"action": "role.grant", "category": "authorization"},
    {"action": "invoice.export", "category": "data", "actor": {"type": "user", "id": "u_<1>&", "name": "Ana & <Co>"}},
)


def test_a_report_from_the_command_line(tmp_path: Path) -> None:
    """Three hundred events, a hold and a signed review: page and data agree with searches, and with what is on record."""
    server = Server(tmp_path, CONFIGURATION).start()
    try:
        events = [{"id": f"e{n}", "actor": "u_1", **KINDS[n % 4]} for n in range(300)]
        server.send_ok("\n".join(map(json.dumps, events)).encode())
        server.drain(300, destinations=("disk",))
        hold = {"tenants": ["default"], "reason": "case 7", "owner": "legal", "review": "2999-01-31"}
        assert server.http.post("/v1/holds", json=hold).status_code == 201
        wait_for(lambda: any("review logins" in one for one in server.status()["reasons"]), "the review to be overdue")
        review = json.loads(server.cli("review", "start", "logins").stdout)
        assert review["events"] == 150
        server.cli("review", "sign", review["id"], "--clean", "--note", "all known")

        def is_stated() -> bool:
            lines = server.http.get("/v1/report", params={"framework": "soc2", "samples": "0"}).text.splitlines()
            return any(one.get("statements") for one in map(json.loads, lines))

        wait_for(is_stated, "a statement in the account tree", every_s=0.5)
        page = tmp_path / "soc2.html"
        server.cli("report", "--framework", "soc2", "--tenant", "default", "--out", str(page))
        report = json.loads(page.with_suffix(".json").read_text())
        controls = {one["id"]: one for one in report["controls"]}
        period = {"from_": report["from"], "to": report["to"]}
        for control in controls.values():
            params = {"tenant": "default", "query": control["query"], "from": period["from_"], "to": period["to"]}
            assert control["count"] == server.http.get("/v1/histogram", params=params).json()["total"], control["id"]
        assert (controls["CC6.1"]["count"], controls["CC6.3"]["count"], controls["PI1.5"]["count"]) == (75, 75, 300)
        vkeys = [one["vkey"] for one in report["parts"]["log"]["logs"]]
        samples = [one for control in controls.values() for one in control["samples"]]
        for sample in samples:
            check_proof(parse_proof(sample["proof"]), event_hashes([sample["line"].encode()]), vkeys)
        assert len(samples) >= 12
        text = page.read_text()
        ElementTree.fromstring(text.replace("<!DOCTYPE html>\n", "", 1))
        assert not re.search(r"(?:src|href|action)\s*=\s*[\"'](?!#)|url\(|<script", text)
        assert "case 7" in text
        assert "all known" in text
        assert report["parts"]["deliveries"]["statements"][0]["delivered"] >= 300
        codes = {one["code"] for one in report["limits"]}
        assert {"not_witnessed", "no_sequence", "no_drill"} <= codes
        assert "no_review" not in codes
        params = {"tenant": "default", "query": "action:tallystick.export AND metadata.format:report"}
        assert server.http.get("/v1/events", params=params).json()["events"][0]["metadata"]["framework"] == "soc2"
    finally:
        server.close()
