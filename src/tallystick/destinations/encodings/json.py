"""Canonical JSON: the lines as they are, joined; plain, or framed by zstd or gzip.

The framing is deterministic: no time, no name, a fixed level. Compressed bytes also depend on the library, so its version is
part of ``version``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import zstandard

from tallystick.errors import ConfigError
from tallystick.plugin import Encoder


class JsonLines:
    """JSON lines: each canonical line and a line feed, so every line of the body is a leaf of the log."""

    name = "json"
    version = "1"
    content_type = "application/x-ndjson"
    suffix = ".jsonl"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return b"\n".join(lines) + b"\n"


class JsonEnvelope:
    """One JSON object for webhooks: ``{"events":[…],"range":{"log","first_index","last_index"}}``, the events verbatim."""

    name = "json_envelope"
    version = "1"
    content_type = "application/json"
    suffix = ".json"

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        span = f'"range":{{"log":"{origin}","first_index":{first_index},"last_index":{last_index}}}'
        return b'{"events":[' + b",".join(lines) + b"]," + span.encode() + b"}"


class Compressed:
    """Another encoding inside one compressed frame."""

    def __init__(self, inner: Encoder, name: str, suffix: str, library: str, compress: Callable[[bytes], bytes]) -> None:
        self._inner = inner
        self._compress = compress
        self.name = f"{inner.name}+{name}"
        self.version = f"{inner.version}+{library}"
        self.content_type = f"application/{name}"
        self.suffix = inner.suffix + suffix

    def encode(self, lines: Sequence[bytes], *, origin: str, first_index: int, last_index: int) -> bytes:
        return self._compress(self._inner.encode(lines, origin=origin, first_index=first_index, last_index=last_index))


def compress_zstd(body: bytes) -> bytes:
    """One zstd frame, level 3, with content size and checksum."""
    return zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=True).compress(body)


def compress_gzip(body: bytes) -> bytes:
    """One gzip member, level 6, with modification time 0 and no name."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
    return compressor.compress(body) + compressor.flush()


_ZSTD_LIBRARY = "zstd-" + ".".join(map(str, zstandard.ZSTD_VERSION))
_GZIP_LIBRARY = f"zlib-{zlib.ZLIB_RUNTIME_VERSION}"

ENCODERS: dict[str, Callable[[], Encoder]] = {"json": JsonLines, "json_envelope": JsonEnvelope}


def make_encoder(encoding: str, compression: str = "none") -> Encoder:
    """The encoder of that name inside that framing (none, zstd, gzip). Raises ConfigError for an unknown name."""
    if encoding not in ENCODERS:
        raise ConfigError(f"unknown encoding {encoding!r}", hint=f"Known are {', '.join(sorted(ENCODERS))}")
    inner = ENCODERS[encoding]()
    if compression == "zstd":
        return Compressed(inner, "zstd", ".zst", _ZSTD_LIBRARY, compress_zstd)
    if compression == "gzip":
        return Compressed(inner, "gzip", ".gz", _GZIP_LIBRARY, compress_gzip)
    return inner
