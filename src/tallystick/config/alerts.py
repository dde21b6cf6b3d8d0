"""Settings of alert rules, and of alarms about the pipeline itself. The rules themselves stand in files of their own (`alerts.rule`)."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from tallystick.config.base import Settings
from tallystick.config.units import Duration


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


class AlarmSettings(Settings, frozen=True):
    """`[alarms]`: when what is wrong with the pipeline itself becomes an event."""

    interval: Annotated[Duration, Meta(description="Time between two looks at the status page.")] = field(
        default_factory=lambda: Duration("5s")
    )
    raise_after: Annotated[Duration, Meta(description="What is wrong for so long raises an alarm.")] = field(
        default_factory=lambda: Duration("1m")
    )
    clear_after: Annotated[Duration, Meta(description="An alarm whose trouble was gone for so long is cleared.")] = field(
        default_factory=lambda: Duration("5m")
    )
    lag: Annotated[Duration, Meta(description="Age of a destination's oldest pending event from which on it lags.")] = field(
        default_factory=lambda: Duration("15m")
    )
    dead_letters: Annotated[int, Meta(description="So many new dead letters of a destination are an alarm.", ge=1)] = 1
