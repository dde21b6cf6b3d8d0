"""The only place that syncs, renames, truncates or unlinks (`files`), and what is built on it: state files and locks."""

from tallystick.durable.files import (
    append_all,
    make_dir,
    preallocate,
    publish_new,
    rename,
    replace_file,
    replace_volatile,
    set_observer,
    sync_data,
    sync_dir,
    sync_file,
    truncate,
    unlink,
    unlink_all,
    write_all,
    write_new,
)
from tallystick.durable.lock import RoleLock
from tallystick.durable.state import StateFile

__all__ = [
    "RoleLock",
    "StateFile",
    "append_all",
    "make_dir",
    "preallocate",
    "publish_new",
    "rename",
    "replace_file",
    "replace_volatile",
    "set_observer",
    "sync_data",
    "sync_dir",
    "sync_file",
    "truncate",
    "unlink",
    "unlink_all",
    "write_all",
    "write_new",
]
