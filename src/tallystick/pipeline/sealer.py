"""The sealer's process."""

from __future__ import annotations

import itertools
import threading

from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.journal.cursor import Cursor
from tallystick.journal.reader import JournalReader
from tallystick.pipeline.again import keep_trying
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event


def run(installation: Installation) -> None:
    """Seal until told to stop."""
    stop = stop_event()
    lives = itertools.count()
    keep_trying("sealer", installation.data_dir, stop, lambda: _seal(installation, stop, is_suspect=next(lives) > 0))


def _seal(installation: Installation, stop: threading.Event, *, is_suspect: bool) -> None:
    place = SealerPlace(
        installation.data_dir, installation.keys_dir, installation.server_name, config_hash=installation.config.hash
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
