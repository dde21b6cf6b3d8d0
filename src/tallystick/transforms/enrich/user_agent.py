"""Browser, system and device, told from the text of the User-Agent by the uap-core patterns (package `ua-parser`).

The patterns run on Rust's engine, in time linear in the text: the text is a stranger's.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from tallystick.transforms.enrich.dataset import DataSet
from tallystick.transforms.enrich.geo import optional
from tallystick.transforms.enrich.lookup import DATASET

_LENGTH_MAX = 1_024
"""Characters that are looked at; nothing of interest is behind."""


class UserAgents(DataSet):
    """The parser."""

    def __init__(self) -> None:
        parser, loaders = optional("ua_parser"), optional("ua_parser.loaders")
        engine = optional("ua_parser.regex")
        optional("ua_parser_rs")
        self._parse = parser.Parser(engine.Resolver(loaders.load_lazy_builtins())).parse
        self._parse("Mozilla/5.0")  # compiles the patterns, half a second's work
        super().__init__("uap-core", version("ua-parser-builtins"))

    def find(self, value: str) -> dict[str, Any] | None:
        """What is known of it; None when nothing is."""
        told = self._parse(value[:_LENGTH_MAX])
        found: dict[str, str] = {}
        for name, part in (("browser", told.user_agent), ("os", told.os)):
            if part is not None:
                found[name] = part.family
                numbers = [one for one in (part.major, part.minor, part.patch, part.patch_minor) if one is not None]
                if numbers:
                    found[f"{name}_version"] = ".".join(numbers)
        if told.device is not None:
            named = {"device": told.device.family, "device_brand": told.device.brand, "device_model": told.device.model}
            found |= {name: text for name, text in named.items() if text}
        return {**found, DATASET: self.facts} if found else None
