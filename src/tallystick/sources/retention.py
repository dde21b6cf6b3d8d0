"""Which retention class an event gets: the queries of `[retention.classes]`, asked of the line that will be stored.

The class stands in the line (`ingest.class`), so it is decided before the line is hashed. All lines of a batch are made with
`standard`; a query looks for the texts that it needs in their bytes first and decodes only what it names, and in the few lines
that another class takes its name is put in place of the default. With no query in the configuration nothing is looked at.
"""

from __future__ import annotations

from tallystick.config import Config
from tallystick.config.load import place_of
from tallystick.config.retention import DEFAULT_CLASS
from tallystick.errors import ConfigError, QueryError
from tallystick.query.evaluate import Matcher, compile_query

_INGEST = b'"ingest":{'
_DEFAULT = b'"class":"%b"' % DEFAULT_CLASS.encode()


class ClassRules:
    """The rules of one configuration. Raises ConfigError with the place of a query that cannot be read."""

    def __init__(self, config: Config | None = None) -> None:
        self._rules = (
            []
            if config is None
            else [
                (b'"class":"%b"' % name.encode(), _compile(config, name, settings.where))
                for name, settings in config.retention.known.items()
                if settings.where is not None
            ]
        )

    def __bool__(self) -> bool:
        return bool(self._rules)

    def apply(self, lines: list[bytes]) -> list[bytes]:
        """The same canonical lines, each with its class; those given have the default one."""
        waiting = list(range(len(lines)))
        for text, matcher in self._rules:
            taken = {waiting[place] for place in matcher.matching([lines[place] for place in waiting])}
            for place in taken:
                lines[place] = _with_class(lines[place], text)
            waiting = [place for place in waiting if place not in taken]
        return lines


def _with_class(line: bytes, text: bytes) -> bytes:
    """Unescaped, `"ingest":{` can be another's member too (in metadata), but none comes later: only `sealed` follows ours."""
    start = line.index(_DEFAULT, line.rindex(_INGEST))
    return line[:start] + text + line[start + len(_DEFAULT) :]


def _compile(config: Config, name: str, query: str) -> Matcher:
    try:
        return compile_query(query)
    except QueryError as error:
        place = place_of(config, f"retention.classes.{name}.where")
        raise ConfigError(
            f"retention.classes.{name}.where: {error.message} ({error.place})", place=place, hint=error.hint
        ) from error
