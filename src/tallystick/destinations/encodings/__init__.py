"""Encodings: what a cut's lines look like on the way out. Each is pure, and named with a version that fixes its bytes."""

from tallystick.destinations.encodings.json import ENCODERS, make_encoder

__all__ = ["ENCODERS", "make_encoder"]
