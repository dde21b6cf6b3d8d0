"""The entry point of the api process: the HTTP API with the console over it."""

from __future__ import annotations

from tallystick.api.process import serve
from tallystick.console.app import create_app
from tallystick.pipeline.context import Installation


def run(installation: Installation) -> None:
    """Serve until told to stop."""
    serve(installation, create_app)
