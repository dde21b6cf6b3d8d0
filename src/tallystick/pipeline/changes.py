"""What a new configuration changes: what only a start can bring about, and which processes have to hear of the rest.

The intake takes a new configuration without letting go of a connection (`entrance`). A follower is ended and started
again: it goes on from its cursor, and nobody waits for it. The sealer is always among them, since the hash of every configuration goes
into the root log.
"""

from __future__ import annotations

from typing import Final

from tallystick.config import Config
from tallystick.errors import ConfigError

_FIXED_SERVER: Final = ("name", "listen", "workers", "insecure", "tls")
_FIXED: Final = ("data", "keys", "journal")
_TAKEN_BY_INTAKE: Final = frozenset({"sources", "transforms", "pipeline", "seal"})
_READ_BY: Final = {
    "archiver": frozenset({"archive", "completeness", "backup", "retention", "alerts"}),
    "dispatcher": frozenset({"destinations", "delivery", "archive"}),
}


def refuse_fixed(old: Config, new: Config) -> None:
    """Raises ConfigError when ``new`` differs where only a start can make a difference."""
    changed = [f"server.{name}" for name in _FIXED_SERVER if getattr(old.server, name) != getattr(new.server, name)]
    changed += [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    if changed:
        raise ConfigError(
            f"these cannot change while the server runs: {', '.join(changed)}",
            place=new.path,
            hint="Restart, or put them back as they were and reload again",
        )


def followers_to_restart(old: Config, new: Config) -> tuple[str, ...]:
    """The roles besides the intake that must start again with ``new``."""
    changed = {name for name in Config.__struct_fields__ if getattr(old, name) != getattr(new, name)} - {"path", "hash"}
    roles = ["sealer"] if old.hash != new.hash else []
    roles += [role for role, sections in _READ_BY.items() if changed & sections]
    if changed - _TAKEN_BY_INTAKE:
        roles.append("api")
    return tuple(roles)
