"""The encodings by name, each loaded when a destination asks for it.

A destination says which shapes it can carry (`EncodingSettings.carries`), an encoding which it has:

    json     a record is one JSON object: goes into lines, JSON envelopes, JSON columns, messages
    text     a record is one line of text that is no JSON: goes into lines and messages
    whole    a cut is one body of bytes: goes into objects
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from tallystick.destinations.encodings.framing import Batch, Compressed, Envelope, EventEncoding, Lines
from tallystick.errors import ConfigError
from tallystick.plugin import Encoder

Shape = Literal["json", "text", "whole"]
SHAPES: tuple[Shape, ...] = ("json", "text", "whole")
Framing = Literal["lines", "envelope"]
Compression = Literal["none", "zstd", "gzip"]
Options = Mapping[str, str]
"""What a destination's settings say beside the name: ``ocsf_version``."""

_HERE = "tallystick.destinations.encodings"


@dataclass(frozen=True, slots=True)
class EncodingKind:
    """Where an encoding is (``module:factory``, called with the options), and the shape of its records.

    ``batch_type``: the media type of the encoding's own way to put several events together, a JSON array of them.
    ``is_compressed``: its bytes are, and no framing goes around them.
    """

    factory: str
    shape: Shape
    batch_type: str = ""
    is_compressed: bool = False

    def make(self, options: Options) -> EventEncoding:
        """The encoding of single events. Not for the shape `whole`."""
        return cast("EventEncoding", self._call(options))

    def make_encoder(self, framing: Framing, options: Options) -> Encoder:
        """The encoder of whole cuts, in that framing."""
        if self.shape == "whole":
            return cast("Encoder", self._call(options))
        events = self.make(options)
        if framing == "lines":
            return Lines(events)
        return Batch(events, self.batch_type) if self.batch_type else Envelope(events)

    def _call(self, options: Options) -> object:
        module, name = self.factory.split(":")
        factory = cast("Callable[[Options], object]", getattr(importlib.import_module(f"{_HERE}.{module}"), name))
        return factory(options)


ENCODINGS: dict[str, EncodingKind] = {
    "json": EncodingKind("json:make", "json"),
    "ocsf": EncodingKind("ocsf:make", "json"),
    "ecs": EncodingKind("ecs:make", "json"),
    "cloudevents": EncodingKind("cloudevents:make", "json", "application/cloudevents-batch+json"),
    "cef": EncodingKind("cef:make", "text"),
    "leef": EncodingKind("leef:make", "text"),
    "rfc5424": EncodingKind("rfc5424:make", "text"),
    "otlp": EncodingKind("otlp_logs:make", "whole"),
    "parquet": EncodingKind("parquet:make", "whole", is_compressed=True),
}


def find_encoding(name: str, carries: Collection[Shape] = SHAPES) -> EncodingKind:
    """The encoding of that name. Raises ConfigError for one that is unknown, or of a shape that cannot be carried."""
    fitting = [known for known, kind in ENCODINGS.items() if kind.shape in carries]
    if name not in ENCODINGS:
        raise ConfigError(f"unknown encoding {name!r}", hint=f"Known here are {', '.join(sorted(fitting))}")
    if name not in fitting:
        raise ConfigError(
            f"this type of destination cannot carry the encoding {name!r}",
            hint=f"It carries {', '.join(sorted(fitting))} (docs/encodings.md)",
        )
    return ENCODINGS[name]


def make_encoder(
    encoding: str, compression: Compression = "none", *, framing: Framing = "lines", options: Options | None = None
) -> Encoder:
    """The encoder of that name in that framing. Raises ConfigError for an unknown name."""
    kind = find_encoding(encoding)
    inner = kind.make_encoder(framing, options or {})
    return inner if compression == "none" or kind.is_compressed else Compressed(inner, compression)
