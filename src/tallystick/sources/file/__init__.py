"""Source type `file`."""

from __future__ import annotations

from tallystick.sources.file.settings import FileSettings
from tallystick.sources.file.source import FileSource
from tallystick.sources.kind import NATIVE, SourceKind

KIND = SourceKind(FileSettings, lambda plan: "reads files", source=FileSource, mappings=(NATIVE,))

__all__ = ["KIND", "FileSettings", "FileSource"]
