"""Redaction, before the journal: `transform` has the whole, `keys`, `paths` and `walk` the ways to find, `actions` what is done."""

from tallystick.transforms.redact.settings import PathRule, RedactSettings
from tallystick.transforms.redact.transform import Redact

__all__ = ["PathRule", "Redact", "RedactSettings"]
