"""Periods by tenant and class, in seconds, out of a configuration."""

from __future__ import annotations

from collections.abc import Mapping

from tallystick.archive.expiry_plan import PeriodOf
from tallystick.config import Config


def configured_periods(config: Config, names: Mapping[str, str]) -> PeriodOf:
    """What the configuration says; ``names``: tenants by handle. A class that it does not know is kept for ever."""
    classes = config.retention.known

    def period_of(handle: str, retention_class: str) -> float | None:
        own = config.tenants.get(names.get(handle, ""))
        if own is not None and retention_class in own.retention:
            return own.retention[retention_class].seconds
        return classes[retention_class].period.seconds if retention_class in classes else None

    return period_of
