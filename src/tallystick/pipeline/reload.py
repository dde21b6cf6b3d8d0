"""A new configuration under a running server (SIGHUP), in steps, so that a bad one changes nothing.

    1. read and check    the whole file, as a start would; what only a start can change is refused by name
    2. stage             children that start from now on meet the new one; the intake is told to take it
    3. the intake        builds everything anew beside the old, opens what is to be opened, and swaps; or says why not
    4. the followers     those that read what has changed are ended and start again from their cursors; the sealer always
                         (the configuration's hash goes into the root log)

Whatever fails before step 4 leaves the old configuration in force everywhere, and the reason in the log and in `/v1/status`. Each
outcome is an event in the server's own log (promise P12), written again and again until the intake takes it.
"""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec

from tallystick.config import Config
from tallystick.errors import ConfigError
from tallystick.journal.tenants import SERVER_TENANT
from tallystick.pipeline.changes import followers_to_restart, refuse_fixed
from tallystick.pipeline.context import Installation
from tallystick.pipeline.snapshot import Snapshot
from tallystick.telemetry import log, publish_status, read_status

_TAKE_S: Final = 20.0
_REMIND_S: Final = 1.0
_TELL_AGAIN_S: Final = 5.0
_TELL_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class _Pending:
    config: Config
    before: bytes
    began: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a reload ended: the roles to start again; none when it was refused."""

    restart: tuple[str, ...] = ()


@dataclass(slots=True)
class Reload:
    """The configuration over the life of one supervisor. ``read`` gives the file's bytes and what they mean, checked.

    ``takers`` are the roles that take a new configuration without ending; each says with `answer` what came of it.
    """

    installation: Installation
    snapshot: Snapshot
    read: Callable[[], tuple[bytes, Config]]
    takers: Sequence[str] = ("intake",)
    _pending: _Pending | None = None
    _untold: list[dict[str, Any]] = field(default_factory=list)
    _tell_at: float = 0.0
    _to_tell: set[str] = field(default_factory=set)
    _remind_at: float = 0.0

    def begin(self) -> bool:
        """Steps 1 and 2. False while another reload is under way: that one is seen to its end first."""
        if self._pending is not None:
            return False
        try:
            data, config = self.read()
            refuse_fixed(self.installation.config, config)
        except ConfigError as error:
            self._conclude(str(error))
            return True
        self._pending = _Pending(config, self.snapshot.data, time.time())
        self._stage(data)
        return True

    def to_be_told(self) -> set[str]:
        """The takers that are to be told now: each once, and again every second while its answer is waited for."""
        told, self._to_tell = self._to_tell, set()
        return told

    def poll(self) -> Verdict | None:
        """Step 3 as far as it has come; None: not over."""
        pending = self._pending
        if pending is None:
            return None
        answers = {role: read_status(self.installation.data_dir, _page(role)) for role in self.takers}
        errors = {role: page["error"] for role, page in answers.items() if page is not None and float(page["at"]) >= pending.began}
        refused = next((str(error) for error in errors.values() if error), "")
        silent = set(self.takers) - set(errors)
        if silent and not refused:
            if time.time() - pending.began < _TAKE_S:
                self._remind(silent)
                return None
            refused = f"{', '.join(sorted(silent))} did not take it within {_TAKE_S:.0f} s"
        self._pending = None
        if refused:
            self._stage(pending.before)
            self._conclude(refused)
            return Verdict()
        roles = followers_to_restart(self.installation.config, pending.config)
        self.installation = replace(self.installation, config=pending.config)
        self._conclude("")
        return Verdict(roles)

    def publish(self, refused: str = "") -> None:
        """Say which configuration is in force, and why the newest was refused, for the status page."""
        config = self.installation.config
        page = {"config": {"path": config.path, "hash": config.hash, "refused": refused or None}}
        publish_status(self.installation.data_dir, "supervisor", page)

    def tell(self) -> None:
        """Put on record what is not on record yet."""
        if not self._untold or time.monotonic() < self._tell_at:
            return
        try:
            _append(self.installation, self._untold)
            self._untold = []
        except (OSError, http.client.HTTPException) as error:
            log.warning("a change of configuration is not on record yet", error=str(error))
            self._tell_at = time.monotonic() + _TELL_AGAIN_S

    def _stage(self, data: bytes) -> None:
        self.snapshot.put(data)
        self._to_tell = set(self.takers)
        self._remind_at = time.monotonic() + _REMIND_S

    def _remind(self, silent: set[str]) -> None:
        """One that was just being started when it was told may not have heard it."""
        if time.monotonic() >= self._remind_at:
            self._to_tell = silent
            self._remind_at = time.monotonic() + _REMIND_S

    def _conclude(self, refused: str) -> None:
        config = self.installation.config
        if refused:
            log.error("configuration refused, the old one stays in force", error=refused)
        else:
            log.info("configuration taken", hash=config.hash)
        self.publish(refused)
        event: dict[str, Any] = {
            "action": "tallystick.config.reload",
            "category": "configuration",
            "actor": {"type": "system", "id": "tallystick"},
            "targets": [{"type": "configuration", "id": config.path or "none"}],
            "outcome": "failure" if refused else "success",
            "metadata": {"in_force": config.hash},
        }
        if refused:
            event["reason"] = refused[:2_048]
        self._untold.append(event)


def answer(installation: Installation, role: str, error: str = "") -> None:
    """A taker's word to the supervisor: the staged configuration is in force here, or why it is not."""
    publish_status(installation.data_dir, _page(role), {"error": error})


def _page(role: str) -> str:
    return f"config-{role}"


def _append(installation: Installation, events: list[dict[str, Any]]) -> None:
    """Through the intake's inner door. Raises OSError, http.client.HTTPException."""
    connection = _UnixConnection(installation)
    try:
        body = msgspec.json.encode({"tenant": SERVER_TENANT, "events": events})
        connection.request("POST", "/events", body, {"content-type": "application/json"})
        status = connection.getresponse().status
        if status != 200:
            raise OSError(f"the intake answered {status}")
    finally:
        connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over ``run/intake.sock``, by way of an open directory: the path may be longer than a socket's name can be."""

    def __init__(self, installation: Installation) -> None:
        super().__init__("intake", timeout=_TELL_S)
        self._run_dir = installation.run_dir

    def connect(self) -> None:
        directory = os.open(self._run_dir, os.O_RDONLY | os.O_DIRECTORY)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(f"/proc/self/fd/{directory}/intake.sock")
        finally:
            os.close(directory)
