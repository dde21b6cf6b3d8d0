"""The settings of every destination whose events may be written in several forms.

class QueueSettings(EncodingSettings, frozen=True, kw_only=True):
    carries: ClassVar[tuple[Shape, ...]] = ("json",)

self.encoder = settings.make_encoder()              # in the destination's __init__
records_of(cut.body)                                # where each event is a message of its own
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from tallystick.config import DestinationSettings
from tallystick.destinations.encodings.framing import EventEncoding
from tallystick.destinations.encodings.registry import Compression, Framing, Shape, find_encoding, make_encoder
from tallystick.plugin import Encoder


class EncodingSettings(DestinationSettings, frozen=True, kw_only=True):
    """`encoding` and what belongs to it. ``carries``: the shapes of records that the destination can send."""

    carries: ClassVar[tuple[Shape, ...]] = ("json", "text")

    encoding: Annotated[str, Meta(description="Form of the events: a name out of docs/encodings.md.")] = "json"
    ocsf_version: Annotated[
        Literal["1.8", "1.5", "1.1"], Meta(description='Version of the OCSF schema, with `encoding = "ocsf"`.')
    ] = "1.8"

    def check_encoding(self) -> None:
        """Raises ConfigError for an encoding that is unknown or cannot be carried."""
        find_encoding(self.encoding, self.carries)

    def make_encoder(self, compression: Compression = "none", framing: Framing = "lines") -> Encoder:
        """The encoder that the settings name. Raises ConfigError as ``check_encoding`` does."""
        self.check_encoding()
        return make_encoder(self.encoding, compression, framing=framing, options=self._options())

    def make_events(self) -> EventEncoding:
        """The encoding of single events, for a destination with a framing of its own. Raises as ``check_encoding`` does."""
        return find_encoding(self.encoding, self.carries).make(self._options())

    def _options(self) -> dict[str, str]:
        return {"ocsf_version": self.ocsf_version}
