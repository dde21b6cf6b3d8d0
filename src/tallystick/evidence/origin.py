"""Names of the trees: origins, which are also the names of the keys that sign them, and where their files lie."""

from __future__ import annotations

from pathlib import Path

ROOT = "root"


def event_origin(server_name: str, handle: str) -> str:
    """Origin of a tenant's event tree."""
    return f"{server_name}/log/{handle}"


def account_origin(server_name: str, handle: str) -> str:
    """Origin of a tenant's account tree."""
    return f"{server_name}/log/{handle}/account"


def root_origin(server_name: str) -> str:
    """Origin of the root log."""
    return f"{server_name}/log/{ROOT}"


def tree_name(origin: str) -> str:
    """The part after ``/log/``: ``<handle>``, ``<handle>/account`` or ``root``; paths, URLs and files go by it."""
    return origin.rpartition("/log/")[2]


def tree_dir(data_dir: Path, name: str) -> Path:
    """The directory of a tree's files. ``name`` as from ``tree_name``."""
    return data_dir / "trees" / name
