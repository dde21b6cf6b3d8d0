"""`[backup]`: where backups go, how often, how long they are kept, and who can open the key backup."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from tallystick.config.base import Settings
from tallystick.config.units import Duration


class BackupSettings(Settings, frozen=True):
    """`[backup]`"""

    store: Annotated[
        str | None,
        Meta(description="A directory or s3://, gs://, az:// URL, outside the data directory; absent: no backups are made."),
    ] = None
    schedule: Annotated[Duration, Meta(description="Time from one backup to the next.")] = field(
        default_factory=lambda: Duration("1d")
    )
    keep: Annotated[
        Duration,
        Meta(
            description="Backups older than this are deleted, but never the newest. What expires or is erased may live on in them for so long."
        ),
    ] = field(default_factory=lambda: Duration("35d"))
    recipients: Annotated[
        tuple[str, ...],
        Meta(description="age public keys (age1…) of those who can open the key backup; absent: keys are not backed up."),
    ] = ()
    keys_store: Annotated[
        str | None, Meta(description="Where key backups go, apart from the data; default is the store's path + `.keys`.")
    ] = None
    drill: Annotated[Duration, Meta(description="A restore drill is due after this time; past it the status says so.")] = field(
        default_factory=lambda: Duration("30d")
    )
    options: Annotated[
        dict[str, str], Meta(description="Options of the object store, as obstore names them (endpoint, region …).")
    ] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("schedule", "keep", "drill"):
            period: Duration = getattr(self, name)
            if period.seconds < 1:
                raise ValueError(f"{name} = {period.text!r} is shorter than a second")
        for recipient in self.recipients:
            if not recipient.startswith("age1"):
                raise ValueError(f"recipients: {recipient[:16]!r} is no age public key; it begins with age1")
        if self.store is None and (self.recipients or self.keys_store):
            raise ValueError("recipients and keys_store need a store")
