"""What status says of backups and drills: what failed, what is overdue, and, as long as it is so, that nobody could bring the keys back."""

from __future__ import annotations

import time
from typing import Any

from tallystick.api.caller import Caller
from tallystick.api.deps import ApiDeps
from tallystick.archive.backup.ledger import ROLE, LedgerFile
from tallystick.config import Config
from tallystick.errors import IntegrityError
from tallystick.pipeline.backup_watch import at_seconds
from tallystick.telemetry import read_status

_GRACE = 2.0


def backup_state(deps: ApiDeps, caller: Caller) -> tuple[list[str], list[str], dict[str, Any]]:
    """(reasons, warnings, the last of each kind). Blocking. Empty for callers that are bound to tenants."""
    if not caller.is_server_wide:
        return [], [], {}
    try:
        ledger = LedgerFile(deps.data_dir).load()
    except IntegrityError as error:
        return [f"backup: {error}"], [], {}
    reasons, now = [], time.time()
    page = read_status(deps.data_dir, ROLE) or {}
    if page.get("reason"):
        reasons.append(f"backup: {page['reason']}")
    if deps.config.backup_url is not None:
        reasons += overdue(deps.config, ledger.backup, ledger.drills, ledger.since or now, now)
    warnings = []
    if not ledger.keys:
        warnings.append("no backup of the key store exists: set [backup] store and recipients, or nobody can bring lost keys back")
    return reasons, warnings, {"last": ledger.backup, "keys": ledger.keys, "drills": ledger.drills}


def overdue(config: Config, backup: dict[str, Any], drills: dict[str, dict[str, Any]], since: float, now: float) -> list[str]:
    """Backups count as overdue after twice their schedule, restore drills after their period; a drill that failed is told until one passes."""
    found = []
    last = at_seconds(backup.get("at")) or since
    if now > last + _GRACE * config.backup.schedule.seconds:
        found.append(
            f"backup: the last one is {(now - last) / 3600:.1f} hours old, one is made every {config.backup.schedule.text}"
        )
    drill = drills.get("restore", {})
    drilled = at_seconds(drill.get("at")) or since
    if now > drilled + config.backup.drill.seconds:
        text = "was never made" if not drill else f"was last made {drill['at']}"
        found.append(f"drill: a restore drill is overdue, it {text} and is due every {config.backup.drill.text}")
    found += [f"drill: the last {kind} drill failed: {one['problems'][0]}" for kind, one in drills.items() if one.get("problems")]
    return found
