"""Tallystick: an audit logs delivery pipeline that can prove what it received and what it delivered."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tallystick.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``tallystick.Client`` without loading an HTTP library into every process that imports the package."""
    if name in {"AsyncClient", "Client"}:
        import tallystick.client

        return getattr(tallystick.client, name)
    raise AttributeError(f"module 'tallystick' has no attribute {name!r}")
