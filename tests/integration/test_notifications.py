"""From an alert to a message at a real SMTP server, its acknowledgement, and the alarm of a destination that was paused."""

from __future__ import annotations

import json
from pathlib import Path

from support.server import Server, wait_for
from support.smtp_server import PASSWORD, USER, SmtpServer, run_smtp_server
from support.target import event

CONFIGURATION = """
[seal]
interval = "50ms"
root_interval = "500ms"
[alerts]
rules = ["rules.toml"]
[alarms]
interval = "200ms"
raise_after = "1s"
clear_after = "1s"
[destinations.disk]
type = "file"
path = "out.jsonl"
[destinations.mail]
type = "email"
host = "127.0.0.1"
port = {port}
tls = {{ ca = "{ca}" }}
username = "{user}"
password = "{password}"
sender = "audit@example.com"
to = ["oncall@example.com"]
where = "action:tallystick.alert* OR action:tallystick.alarm.*"
interval = "10ms"
batch = {{ max_age = "100ms" }}
"""
RULES = """
[[rules]]
name = "export"
title = "Everything was exported"
severity = "high"
query = "action:data.export"
kind = "match"
"""


def test_an_alert_reaches_a_person_and_so_does_an_alarm(tmp_path: Path) -> None:
    """The mail about the alert, the mail about its acknowledgement, and one each when a paused destination is raised and cleared."""
    (tmp_path / "rules.toml").write_text(RULES)
    with run_smtp_server() as mail:
        text = CONFIGURATION.format(port=mail.port, ca=mail.ca, user=USER, password=PASSWORD)
        server = Server(tmp_path, text).start()
        try:
            assert server.send(json.dumps(event(action="data.export", actor="u_1")).encode()).status_code == 200
            wait_for(lambda: has(mail, "high: Everything was exported"), "the mail about the alert")
            (alert,) = server.http.get("/v1/alerts", params={"state": "open"}).json()["alerts"]
            answer = server.http.post(f"/v1/alerts/{alert['id']}/acknowledge", json={"note": "on it"})
            assert answer.json()["state"] == "acknowledged"
            wait_for(lambda: has(mail, "Everything was exported: acknowledge"), "the mail about its acknowledgement")
            assert server.http.post("/v1/destinations/disk/pause").status_code == 200
            wait_for(lambda: has(mail, "tallystick.alarm.raised", "destination disk"), "the mail about the alarm")
            assert server.http.post("/v1/destinations/disk/resume").status_code == 200
            wait_for(lambda: has(mail, "tallystick.alarm.cleared", "destination disk"), "the mail about its end")
        finally:
            server.close()


def has(mail: SmtpServer, *words: str) -> bool:
    return any(all(word in text for word in words) for text in mail.texts())
