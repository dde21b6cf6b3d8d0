"""Settings of alert rules. The rules themselves stand in files of their own (`alerts.rule`)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from tallystick.config.base import Settings


class AlertSettings(Settings, frozen=True):
    """`[alerts]`"""

    rules: Annotated[
        tuple[str, ...],
        Meta(description="Rule files; `*` and `**` are patterns. Relative paths start at this file (docs/alerts.md)."),
    ] = ()
    builtin: Annotated[
        tuple[str, ...], Meta(description="Packs of built-in rules by name, as `tallystick rules list` shows them; `all` for all.")
    ] = ()
    disabled: Annotated[tuple[str, ...], Meta(description="Names of rules that are left out.")] = ()
    groups: Annotated[
        int,
        Meta(
            description="Groups that each rule remembers, over all tenants; the one that was quiet longest is forgotten first.",
            ge=1,
            le=1_000_000,
        ),
    ] = 10_000

    @property
    def is_on(self) -> bool:
        """Whether there is anything to follow the journal for."""
        return bool(self.rules or self.builtin)
