"""Fluent Bit in the same run, when ``$FLUENT_BIT`` names a binary: http in, file out, filesystem storage, synced, checksums on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench.load import run_wrk
from bench.server import free_port, wait_for_port

_CONFIGURATION = """
[SERVICE]
    flush 1
    log_level error
    storage.path {directory}/fluent-bit-storage
    storage.sync full
    storage.checksum on
[INPUT]
    name http
    listen 127.0.0.1
    port {port}
    storage.type filesystem
[OUTPUT]
    name file
    match *
    path {directory}
    file fluent-bit.out
"""


def version() -> str:
    """As the binary says it; empty without one."""
    binary = os.environ.get("FLUENT_BIT")
    if not binary:
        return ""
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0].split()[-1]


def rate(directory: Path, body: bytes, seconds: float) -> float | None:
    """Requests per second, or None when no binary is named."""
    binary = os.environ.get("FLUENT_BIT")
    if not binary:
        return None
    port = free_port()
    configuration = directory / "fluent-bit.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, port=port))
    array = b"[" + body.replace(b"\n", b",") + b"]"
    process = subprocess.Popen([binary, "-c", str(configuration)])
    try:
        wait_for_port(port)
        headers = {"Content-Type": "application/json"}
        return run_wrk(f"http://127.0.0.1:{port}/audit", array, headers, directory, connections=8, seconds=seconds).requests_s
    finally:
        process.terminate()
        process.wait()
