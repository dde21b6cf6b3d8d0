"""The sealer's process."""

from __future__ import annotations

import itertools
import threading

from tallystick.config import Config
from tallystick.evidence.policy import Policy
from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.journal.cursor import Cursor
from tallystick.journal.reader import JournalReader
from tallystick.journal.tenants import TenantRegistry
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event


def run(installation: Installation) -> None:
    """Seal until told to stop."""
    stop = stop_event()
    lives = itertools.count()
    keep_trying("sealer", installation.data_dir, stop, lambda: _seal(installation, stop, is_suspect=next(lives) > 0))


def _wanted(config: Config, tenants: TenantRegistry) -> Policy:
    """The periods that the configuration asks for; tenants that do not exist yet come in when they do."""
    tenants.reload()
    own = {found.handle: config.tenants[name].retention for name in config.tenants if (found := tenants.get(name)) is not None}
    return Policy(
        {name: settings.period.text for name, settings in config.retention.known.items()},
        {handle: {name: period.text for name, period in periods.items()} for handle, periods in own.items() if periods},
    )


def _seal(installation: Installation, stop: threading.Event, *, is_suspect: bool) -> None:
    tenants = TenantRegistry(installation.data_dir)
    place = SealerPlace(
        installation.data_dir,
        installation.keys_dir,
        installation.server_name,
        config_hash=installation.config.hash,
        policy=lambda: _wanted(installation.config, tenants),
        shorten_delay_s=installation.config.retention.shorten_delay.seconds,
    )
    journal = JournalReader(installation.data_dir, installation.keys, patience_s=installation.config.journal.read_patience.seconds)
    cursor = Cursor(installation.data_dir, "sealer")
    sealer = Sealer(place, installation.keys, installation.config.seal, journal, cursor, is_suspect=is_suspect)
    try:
        sealer.start()
        sealer.run(stop)
    finally:
        sealer.close()
        journal.close()
