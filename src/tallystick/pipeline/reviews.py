"""The queries of `[reviews.*]`, read once before a configuration is taken."""

from __future__ import annotations

from tallystick.config import Config
from tallystick.config.load import place_of
from tallystick.errors import ConfigError, QueryError
from tallystick.query.evaluate import compile_query


def check_reviews(config: Config) -> None:
    """Raises ConfigError with the place of a query that cannot be read."""
    for name, settings in config.reviews.items():
        try:
            if settings.query:
                compile_query(settings.query)
        except QueryError as error:
            dotted = f"reviews.{name}.query"
            raise ConfigError(
                f"{dotted}: {error.message} ({error.place})", place=place_of(config, dotted), hint=error.hint
            ) from error
