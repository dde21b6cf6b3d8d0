"""Encodings: what a cut's lines look like on the way out. Each is pure, and named with a version that fixes its bytes."""

from tallystick.destinations.encodings.framing import records_of
from tallystick.destinations.encodings.registry import ENCODINGS, make_encoder
from tallystick.destinations.encodings.settings import EncodingSettings

__all__ = ["ENCODINGS", "EncodingSettings", "make_encoder", "records_of"]
