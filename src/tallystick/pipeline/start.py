"""The steps of `tallystick up` before and beside the supervisor.

1. Read and check the whole configuration; no socket is opened and no byte written before it has passed.
2. Open or make the installation (`context`), and the admin key.
3. Supervise (`supervisor`); when intake says it is ready, announce it, and with ``--demo`` tell the story once.
"""

from __future__ import annotations

import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tallystick.config import Config, load_config
from tallystick.config.load import place_of, read_text
from tallystick.errors import ConfigError, TallystickError
from tallystick.evidence.backup_note import backup_key_name
from tallystick.evidence.manifest import manifest_key_name
from tallystick.evidence.receipt import receipt_key_name
from tallystick.evidence.statement import statement_key_name
from tallystick.http.access import AdminKey, ensure_admin_key
from tallystick.pipeline.check import check_config
from tallystick.pipeline.context import Installation, open_installation
from tallystick.pipeline.reload import Reload
from tallystick.pipeline.role import overrides_from, role_arguments
from tallystick.pipeline.snapshot import Snapshot
from tallystick.pipeline.supervisor import ROLES, Supervisor, intake_roles
from tallystick.telemetry import configure_logging, log

_LOCAL = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class StartOptions:
    """What the command line said."""

    config: Path | None = None
    data: str | None = None
    keys: str | None = None
    listen: str | None = None
    is_demo: bool = False


@dataclass(frozen=True, slots=True)
class StartHooks:
    """What the command line does at certain moments; all are called in the supervisor's process.

    ``issue_login`` makes a single-use console code for a key id; ``announce`` tells the person; ``tell_story`` fills the demo.
    """

    issue_login: Callable[[Path, str], str]
    announce: Callable[[str, str | None, Path | None, str | None], None]
    tell_story: Callable[[str, str], None]


def start(options: StartOptions, hooks: StartHooks) -> int:
    """Run until stopped; returns the exit code. Raises ConfigError and StartError before anything was opened."""
    os.umask(0o077)
    configure_logging()
    text, config = _read(options)
    check_listen(config, is_given=options.listen is not None)
    installation = open_installation(config, create=True)
    for name in server_key_names(installation.server_name):
        installation.keys.signing_key(name, create=True)
    admin = ensure_admin_key(installation.keys_dir, os.environ.get("TALLYSTICK_ADMIN_KEY"))
    intake = intake_roles(config.server.workers)
    supervisor = Supervisor(
        installation,
        role_arguments(options.config, options.data, options.keys, options.listen),
        Reload(installation, Snapshot(text), partial(_read, options), intake),
        on_ready=lambda: _on_ready(installation, admin, hooks, is_story_wanted=options.is_demo),
        is_ready=lambda: (installation.run_dir / "api.sock").exists() and _is_ready(config),
        roles=(*intake[:-1], *ROLES),
    )
    return supervisor.run()


def _read(options: StartOptions) -> tuple[bytes, Config]:
    """The configuration file's bytes, and what they mean, checked as a whole. Raises ConfigError."""
    text = read_text(options.config)
    config = load_config(options.config, overrides_from(options.data, options.keys, options.listen), text=text)
    check_config(config)
    return text, config


def server_key_names(server_name: str) -> tuple[str, ...]:
    """Keys that sign something other than heads: made before the roles start, introduced by the sealer's `key` entries."""
    kinds = (receipt_key_name, manifest_key_name, statement_key_name, backup_key_name)
    return tuple(name_of(server_name) for name_of in kinds)


def base_url(config: Config) -> str:
    """Where a client on this machine reaches the server."""
    scheme = "https" if config.server.tls else "http"
    host, _, port = config.server.listen.rpartition(":")
    return f"{scheme}://{_LOCAL.get(host, host)}:{port}"


def _local_address(config: Config) -> tuple[str, int]:
    host, _, port = config.server.listen.rpartition(":")
    return _LOCAL.get(host, host).strip("[]"), int(port)


def _can_connect(config: Config) -> bool:
    try:
        socket.create_connection(_local_address(config), timeout=_LOOK_S).close()
    except OSError:
        return False
    return True


def check_listen(config: Config, *, is_given: bool = False) -> None:
    """Refuse plain HTTP off loopback unless the operator wrote ``insecure = true``. Raises ConfigError.

    ``is_given``: the address is the command line's, so no line of the file is to blame.
    """
    place = place_of(config, "server.listen") if config.path and not is_given else None
    host, separator, port = config.server.listen.rpartition(":")
    if not separator or not port.isdigit() or not 1 <= int(port) <= 65535:
        message = f"[server] listen = {config.server.listen!r} is no address and port"
        raise ConfigError(message, place=place, hint='Write "127.0.0.1:8420"')
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError as error:
        message = f"[server] listen = {config.server.listen!r} needs an IP address"
        raise ConfigError(message, place=place, hint='Write "127.0.0.1:8420"') from error
    if not is_loopback and config.server.tls is None and not config.server.insecure:
        raise ConfigError(
            f"[server] listen = {config.server.listen!r} can be reached from outside and would speak plain HTTP",
            place=place,
            hint="Set tls = { cert, key }, or insecure = true if something in front of it speaks TLS",
        )
    if not is_loopback and config.server.tls is None:
        log.warning("listening off loopback without TLS, as insecure = true says", listen=config.server.listen)


def _on_ready(installation: Installation, admin: AdminKey, hooks: StartHooks, *, is_story_wanted: bool) -> None:
    url = base_url(installation.config)
    if is_story_wanted and admin.secret:
        threading.Thread(target=_tell_story, args=(hooks, url, admin.secret), name="story", daemon=True).start()
    login = None
    if admin.key_id:
        login = f"{url}/login?code={hooks.issue_login(installation.data_dir, admin.key_id)}"
    hooks.announce(url, login, admin.path, admin.secret)


def _tell_story(hooks: StartHooks, url: str, secret: str) -> None:
    try:
        hooks.tell_story(url, secret)
    except (OSError, TallystickError) as error:
        log.error("the story was not told to its end; the next start goes on with it", error=str(error))


def _is_ready(config: Config) -> bool:
    """Over the real listener: intake would accept, and the api process answers (401, since no key is shown).

    Where clients must show a certificate we have none: then a listener is all that can be seen.
    """
    if config.server.tls and config.server.tls.client_ca:
        return _can_connect(config)
    return _status_of(config, "/healthz/ready") == 200 and _status_of(config, "/v1/limits") == 401


def _status_of(config: Config, path: str) -> int:
    """The status of one GET, 0 when there was no answer."""
    host, port = _local_address(config)
    connection = http.client.HTTPConnection(host, port, timeout=_LOOK_S)
    if config.server.tls:
        # It is our own listener, and nothing is told to it: the certificate may name whatever outsiders call this server.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(host, port, timeout=_LOOK_S, context=context)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
