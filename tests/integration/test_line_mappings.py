"""Lines of text through a running server: an audit log that auditd writes, and logins that logger sends."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.ledger import OURS
from support.server import Server, wait_for

CONFIGURATION = """
[sources.auditd]
type = "file"
paths = ["{0}/audit.log"]
join = "auditd"
join_wait = "200ms"
mapping = "linux_auditd"
tenant = "acme"
[sources.logins]
type = "syslog"
listen = "127.0.0.1:0"
transport = ["tcp"]
mapping = "syslog_auth"
tenant = "acme"
"""
AUDIT = """\
type=SYSCALL msg=audit(1772614800.250:42): arch=c000003e syscall=59 success=yes exit=0 a0=1 auid=1000 uid=1000 euid=0 ses=3 comm="su" exe="/bin/su"
type=USER_AUTH msg=audit(1772614800.251:43): pid=9 uid=0 auid=1000 ses=3 msg='op=PAM:authentication acct="root" exe="/bin/su" addr=? res=failed'
type=EXECVE msg=audit(1772614800.250:42): argc=2 a0="su" a1=2D6C
type=TTY msg=audit(1772614800.252:44): tty pid=9 uid=0 auid=1000 ses=3 major=136 minor=0 comm="bash" data=68756E746572320A
type=EOE msg=audit(1772614800.250:42):
"""
SECRETS = ("68756E74657232", "hunter2")


def _events(server: Server, source: str, count: int) -> list[dict[str, Any]]:
    """All events of a source, once there are ``count``."""
    return wait_for(lambda: len(found := _found(server, source)) == count and found, f"{count} events: {_found(server, source)}")


def _found(server: Server, source: str) -> list[dict[str, Any]]:
    params = {"query": f"source.name:{source} {OURS}", "order": "asc", "limit": "100", "tenant": "acme"}
    found: list[dict[str, Any]] = server.http.get("/v1/events", params=params).json().get("events", [])
    return found


def test_an_audit_log_becomes_events_and_typed_keys_are_in_none(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """Lines of one serial are joined though others stand between; what was typed at a terminal is in no event."""
    (tmp_path / "audit.log").write_text(AUDIT)
    server = make_server(CONFIGURATION.format(tmp_path)).start()
    found = {event["action"]: event for event in _events(server, "auditd", 3)}
    call, login, typed = found["syscall.execve"], found["audit.USER_AUTH"], found["audit.TTY"]
    assert (call["actor"], call["targets"][0]) == ({"type": "user", "id": "1000"}, {"type": "command", "id": "su -l"})
    assert call["on_behalf_of"] == [{"type": "user", "id": "0", "mode": "impersonation"}]
    assert call["raw"].count("\n") == 2
    assert (login["outcome"], login["occurred_at"]) == ("failure", "2026-03-04T09:00:00.251000Z")
    assert [(one["path"], one["action"]) for one in typed["ingest"]["redactions"]] == [("/metadata/data", "mask"), ("/raw", "drop")]
    assert not any(secret in str(found) for secret in SECRETS)


def test_logins_that_logger_sends(make_server: Callable[[str], Server], tmp_path: Path) -> None:
    """The program in the header and the text behind it make one event, in both forms of syslog."""
    server = make_server(CONFIGURATION.format(tmp_path)).start()
    port = str(server.status()["sources"]["logins"]["listen"]).rpartition(":")[2]
    for form, text in (
        ("--rfc3164", "Accepted password for ann from 192.0.2.1 port 5 ssh2"),
        ("--rfc5424", "Failed password for invalid user bob from 192.0.2.2 port 6 ssh2"),
    ):
        subprocess.run(
            ["logger", "--server", "127.0.0.1", "--port", port, "--tcp", form, "--priority", "auth.info", "--tag", "sshd", text],
            check=True,
        )
    found = _events(server, "logins", 2)
    shown = [
        (event["action"], event["actor"]["id"], event["outcome"], event["context"]["ip"], event["severity"]) for event in found
    ]
    assert sorted(shown) == [("sshd.login", "ann", "success", "192.0.2.1", 1), ("sshd.login", "bob", "failure", "192.0.2.2", 1)]
    assert {event["metadata"]["syslog"]["app_name"] for event in found} == {"sshd"}
