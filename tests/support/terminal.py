"""The command line as a person sees it: on a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

from support.server import ADMIN_KEY, Server


def run_in_terminal(server: Server, *arguments: str, check: int = 0) -> str:
    """What a verb writes when standard output is a terminal of 300 columns."""
    leader, follower = pty.openpty()
    environment = {**os.environ, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": ADMIN_KEY, "TERM": "xterm", "COLUMNS": "300"}
    command = [sys.executable, "-c", "from tallystick.cli.main import run; run()", *arguments]
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.PIPE)
    os.close(follower)
    pieces = []
    try:
        while piece := os.read(leader, 65_536):
            pieces.append(piece)
    except OSError:
        pass  # EIO: the last process on the other side has closed it
    finally:
        os.close(leader)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == check, complaint.decode()
    return b"".join(pieces).decode()
