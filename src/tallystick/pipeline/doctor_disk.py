"""What `doctor` can say of the disk, its syncs and the clock.

On fsync honesty: no program can prove from inside that a sync reached the medium. What can be seen is a sync that returns sooner
than any medium could write (RAM, or a cache in between), a file system without barriers, or a device that says it has a volatile
cache. Everything else is "cannot tell": only cutting the power shows it.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tallystick.config import Config
from tallystick.durable import sync_data, write_all
from tallystick.journal.space import allocated_bytes
from tallystick.pipeline.finding import Finding, fail, ok, warn

_SYNCS = 40
_BLOCK = bytes(4096)
_FLASH_S = 20e-6
_ROTATION_S = 1e-3
_VOLATILE = {"tmpfs", "ramfs", "devtmpfs"}
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "fuse", "overlay", "virtiofs"}
_NO_BARRIERS = {"nobarrier", "barrier=0"}
_QUOTA_WARNING = 0.9
_TIME_ERROR = 5
_TIMEX_BYTES = 512
_EARLIEST = 1_735_689_600  # 2025-01-01: older than this software
_AHEAD_S = 60.0


@dataclass(frozen=True, slots=True)
class Mount:
    """The file system that a directory lies on."""

    device: str
    place: str
    kind: str
    options: frozenset[str]


def check_disk(config: Config) -> Iterator[Finding]:
    """Kind of file system, free bytes, quota; for data and keys."""
    directory = existing(config.data_dir)
    mount = mount_of(directory)
    text = f"{mount.kind} on {mount.device}, mounted at {mount.place}"
    if mount.kind in _VOLATILE:
        yield fail("file system", f"{text}: it forgets everything at a restart", "Put the data directory on a disk")
    elif mount.kind.partition(".")[0] in _REMOTE:
        hint = "Locks and syncs are only as good as the other side; a local disk is better"
        yield warn("file system", text, hint)
    elif mount.options & _NO_BARRIERS:
        yield fail(
            "file system", f"{text} without write barriers", "Mount it without nobarrier: a power cut loses what was acknowledged"
        )
    else:
        yield ok("file system", text)
    status = os.statvfs(directory)
    free, size = status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize
    needed = min(config.data.free_min.bytes, size // 32)
    if free < needed:
        yield fail(
            "free space",
            f"{free:,} bytes are free, {needed:,} are to be left: intake refuses",
            "Free space, or lower [data] free_min",
        )
    elif free < needed + config.data.reserve.bytes + config.journal.segment_size.bytes:
        yield warn("free space", f"{free:,} bytes are free: room for less than one more segment", "Free space")
    else:
        yield ok("free space", f"{free:,} of {size:,} bytes")
    yield _quota(config, size)


def _quota(config: Config, disk_bytes: int) -> Finding:
    quota = config.data.quota.bytes
    used = allocated_bytes(config.data_dir)
    if used >= quota:
        return fail("quota", f"{used:,} of {quota:,} bytes are used: intake refuses", "Raise [data] quota")
    if used > _QUOTA_WARNING * quota:
        return warn("quota", f"{used:,} of {quota:,} bytes are used", "Raise [data] quota before it is reached")
    if quota > disk_bytes:
        return ok("quota", f"{used:,} bytes used; the quota of {quota:,} is more than the disk has, so [data] free_min decides")
    return ok("quota", f"{used:,} of {quota:,} bytes used")


def check_syncs(config: Config) -> Iterator[Finding]:
    """How long fdatasync takes on the data directory's disk, and what that says of its honesty."""
    directory = existing(config.data_dir)
    try:
        seconds = sorted(measure_syncs(directory))
    except OSError as error:
        yield fail("syncs", f"fdatasync fails on {directory}: {error.strerror}", "No request can be accepted on this disk")
        return
    median, worst = statistics.median(seconds), seconds[-1]
    yield judge_syncs(median, worst, mount_of(directory), _queue_of(directory))


def judge_syncs(median_s: float, worst_s: float, mount: Mount, queue: dict[str, str]) -> Finding:
    """``queue``: what the kernel says of the block device (``rotational``, ``write_cache``); empty when it has none."""
    cache = queue.get("write_cache", "unknown")
    text = f"median {median_s * 1e3:.2f} ms, longest {worst_s * 1e3:.1f} ms of {_SYNCS}; the device's cache: {cache}"
    bound = _ROTATION_S if queue.get("rotational") == "1" and mount.kind not in _VOLATILE else _FLASH_S
    if median_s < bound and not _is_virtual(mount.device):
        return warn(
            "syncs",
            f"{text}: sooner than such a device can write, so something in between answers",
            "Only a cache with a battery may do that; switch others off (hdparm -W0), or try by cutting the power",
        )
    if median_s < bound:
        return warn("syncs", f"{text}: cannot tell where a virtual disk keeps it", "Ask whoever runs the host about its cache mode")
    hint = " Whether the medium has it, no program can tell; `tallystick doctor durability` shows what the kernel was asked for."
    return ok("syncs", text + "." + hint)


def measure_syncs(directory: Path) -> list[float]:
    """Seconds that each of some syncs of one 4 KiB block took, in a file without a name. Raises OSError."""
    seconds = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for number in range(_SYNCS):
            write_all(file.fileno(), _BLOCK, number * len(_BLOCK))
            started = time.perf_counter()
            sync_data(file.fileno())
            seconds.append(time.perf_counter() - started)
    return seconds


def check_clock(config: Config) -> Iterator[Finding]:
    """The wall clock against this software, the kernel's own word, and what was written before."""
    now = time.time()
    newest = max((path.stat().st_mtime for path in config.data_dir.glob("trees/heads")), default=0.0)
    if now < _EARLIEST:
        yield fail(
            "clock", f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}", "Set it: events get their time of receipt from it"
        )
    elif newest > now + _AHEAD_S:
        yield warn(
            "clock",
            f"it is {newest - now:.0f} s behind the last signed head",
            "Was it set back? Order does not depend on it, times do",
        )
    elif _is_unsynchronised():
        yield warn("clock", "the kernel says that it is not synchronised", "Run an NTP client (chrony, systemd-timesyncd)")
    else:
        yield ok("clock", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)) + ", synchronised")


def _is_unsynchronised() -> bool:
    """adjtimex(2) with no mode set only reads."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES)) == _TIME_ERROR)


def existing(path: Path) -> Path:
    """The path itself, or the nearest parent that is there."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def mount_of(path: Path) -> Mount:
    """By the longest mount point above ``path``; the last one when several lie on one another."""
    found = Mount("unknown", "/", "unknown", frozenset())
    target = path.resolve()
    for line in Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines():
        device, place, kind, options, *_ = (word.replace("\\040", " ") for word in line.split(" "))
        if target.is_relative_to(place) and len(place) >= len(found.place):
            found = Mount(device, place, kind, frozenset(options.split(",")))
    return found


def _queue_of(path: Path) -> dict[str, str]:
    number = path.stat().st_dev
    device = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    for queue in (device / "queue", device.resolve().parent / "queue"):
        if queue.is_dir():
            names = ("rotational", "write_cache")
            return {name: (queue / name).read_text("ascii").strip() for name in names if (queue / name).exists()}
    return {}


def _is_virtual(device: str) -> bool:
    return Path(device).name.startswith(("vd", "xvd", "loop", "nbd", "rbd"))
