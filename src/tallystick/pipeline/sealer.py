"""The sealer's process."""

from __future__ import annotations

from tallystick.evidence.sealer import Sealer, SealerPlace
from tallystick.journal.cursor import Cursor
from tallystick.journal.reader import JournalReader
from tallystick.pipeline.context import Installation
from tallystick.pipeline.signals import stop_event


def run(installation: Installation) -> None:
    """Seal until told to stop."""
    stop = stop_event()
    place = SealerPlace(
        installation.data_dir, installation.keys_dir, installation.server_name, config_hash=installation.config.hash
    )
    sealer = Sealer(
        place,
        installation.keys,
        installation.config.seal,
        JournalReader(installation.data_dir, installation.keys, patience_s=installation.config.journal.read_patience.seconds),
        Cursor(installation.data_dir, "sealer"),
    )
    sealer.start()
    sealer.run(stop)
