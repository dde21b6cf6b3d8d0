"""`tallystick up`: one process per role, started, watched and stopped together.

- The supervisor holds the `supervisor` lock of the data directory, so a second `up` ends at once with exit 3.
- Each role is its own process and dies with the supervisor (`process.die_with_parent`), also under kill -9.
- A role that ends is started again after a pause that grows from 0.5 to 10 seconds: a crashed follower catches up from its
  cursor, a crashed intake recovers its journal. One that finds evidence damaged (exit 4) is tried again too: acceptance
  goes on, and status is red with the reason. Exit 2 and 3 of a role that never ran ask for a person before anything else:
  everything stops. Later they mean that the file or the keys changed under a running server; then only that role waits.
- SIGTERM or SIGINT stops intake first (its workers, then the writer: requests in flight are answered), then the followers; a
  second signal, or the end of the grace period, kills what is left. SIGHUP reads the configuration again (`reload`).
- With intake workers the listening socket is bound here and inherited by each of them (`http.accept`): a port that is taken is a quick
  refusal, and while a worker is started again the others, or the queue of the socket, take what comes.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tallystick.durable import RoleLock
from tallystick.pipeline.bounds import forget_holdings
from tallystick.pipeline.context import Installation
from tallystick.pipeline.process import bind_tcp
from tallystick.pipeline.reload import Reload
from tallystick.telemetry import log

ROLES = ("intake", "api", "sealer", "archiver", "dispatcher")
_WORKER = "worker-"
_GRACE_S = 10.0
_FILES_WANTED = 65_536
_FINAL_CODES = (2, 3)
_PAUSE_MIN_S, _PAUSE_MAX_S = 0.5, 10.0
_STEADY_S = 30.0
# Batches come and go at half a megabyte and more. By default glibc returns such blocks to the system at once and takes a page
# fault for each page the next time: measured as 1.2 µs an event at intake. Kept blocks are bounded by the trim threshold.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "33554432"}


def intake_roles(workers: int) -> tuple[str, ...]:
    """The processes that take events in, the writer last; with one worker the writer is it."""
    return (*(f"{_WORKER}{number}" for number in range(1, workers + 1) if workers > 1), "intake")


@dataclass
class Child:
    """One role's process and its history of starts."""

    role: str
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    pause_s: float = _PAUSE_MIN_S
    next_start: float = 0.0
    starts: int = 0
    is_restarting: bool = False


@dataclass
class Supervisor:
    """Runs the roles until told to stop. ``on_ready`` is called once, when intake first says it is ready."""

    installation: Installation
    role_arguments: Sequence[str]
    reload: Reload
    on_ready: Callable[[], None]
    is_ready: Callable[[], bool]
    roles: Sequence[str] = ROLES
    _listener: socket.socket | None = None
    _children: dict[str, Child] = field(default_factory=dict)
    _signals: int = 0
    _is_reload_wanted: bool = False

    def run(self) -> int:
        """Start everything and stay until a signal or a final failure. Returns the exit code. Raises LockedError."""
        lock = RoleLock(self.installation.data_dir, "supervisor", whole=True)
        lock.acquire()
        _raise_file_limit()
        try:
            if any(map(_is_worker, self.roles)):
                self._listener = bind_tcp(self.installation.config.server.listen)
            _clear_run_dir(self.installation.run_dir)
            self.reload.publish()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, self._on_stop)
            signal.signal(signal.SIGHUP, self._on_reload)
            return self._watch()
        finally:
            self._stop()
            lock.release()

    def _watch(self) -> int:
        for role in self.roles:
            self._children[role] = Child(role)
        is_announced = False
        while not self._signals:
            for child in self._children.values():
                code = self._tend(child)
                if code is not None:
                    return code
            if not is_announced and self.is_ready():
                is_announced = True
                self.on_ready()
            if is_announced:
                self._see_to_reload()
            time.sleep(0.05)
        return 0

    def _tend(self, child: Child) -> int | None:
        now = time.monotonic()
        if child.process is None:
            if now >= child.next_start:
                self._start(child)
            return None
        code = child.process.poll()
        if code is None:
            return None
        child.process = None
        if _is_worker(child.role):
            forget_holdings(self.installation.run_dir, int(child.role.removeprefix(_WORKER)))
        if child.is_restarting:
            child.is_restarting, child.next_start = False, now
            return None
        if code in _FINAL_CODES and child.starts == 1 and now - child.started_at < _STEADY_S:
            return code
        self._put_off(child, f"ended with {code}")
        return None

    def _put_off(self, child: Child, reason: str) -> None:
        now = time.monotonic()
        child.pause_s = _PAUSE_MIN_S if now - child.started_at > _STEADY_S else min(child.pause_s * 2, _PAUSE_MAX_S)
        child.next_start = now + child.pause_s
        log.error("role ended", role=child.role, reason=reason, again_in_s=child.pause_s)

    def _start(self, child: Child) -> None:
        inherited = [self.reload.snapshot.fd]
        command = [sys.executable, "-m", "tallystick.pipeline.role", child.role, str(os.getpid()), *self.role_arguments]
        if _is_worker(child.role) and self._listener is not None:
            inherited.append(self._listener.fileno())
            command += ["--listener", str(inherited[1])]
        command += ["--config-fd", str(inherited[0])]
        is_intake = child.role == "intake" or _is_worker(child.role)
        child.started_at = time.monotonic()
        child.starts += 1
        try:
            # A child begins with SIGHUP blocked: one that comes before it can heed it waits, instead of ending it.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
            child.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                env={**(_ENVIRONMENT if is_intake else {}), **os.environ},
                pass_fds=inherited,
            )
        except OSError as error:  # no memory or no process number now; the other roles go on
            self._put_off(child, f"could not be started: {error.strerror}")
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})

    def _on_stop(self, number: int, _frame: object) -> None:
        self._signals += 1
        if self._signals > 1:
            self._signal_all(signal.SIGKILL)

    def _on_reload(self, number: int, _frame: object) -> None:
        self._is_reload_wanted = True

    def _see_to_reload(self) -> None:
        if self._is_reload_wanted:
            self._is_reload_wanted = not self.reload.begin()
        verdict = self.reload.poll()
        self._signal_all(signal.SIGHUP, self.reload.to_be_told())
        for role in verdict.restart if verdict is not None else ():
            self._children[role].is_restarting = self._children[role].process is not None
            self._signal_all(signal.SIGTERM, [role])
        self.reload.tell()

    def _signal_all(self, number: int, roles: Collection[str] | None = None) -> None:
        for child in self._children.values():
            if (roles is None or child.role in roles) and child.process is not None and child.process.poll() is None:
                child.process.send_signal(number)

    def _stop(self) -> None:
        deadline = time.monotonic() + _GRACE_S
        if self._listener is not None:
            self._listener.close()  # so that nobody is taken in any more once the workers have closed theirs
        workers = [role for role in self.roles if _is_worker(role)]
        for stage in (workers, ["intake"], [role for role in self.roles if role != "intake" and role not in workers]):
            stopping = [child.process for role in stage if (child := self._children.get(role)) and child.process is not None]
            for process in stopping:
                process.terminate()
            for process in stopping:
                _wait(process, deadline)
        _clear_run_dir(self.installation.run_dir)


def _wait(process: subprocess.Popen[bytes], deadline: float) -> None:
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        log.error("role did not stop in time, killing it", pid=process.pid)
        process.kill()
        process.wait()


def _is_worker(role: str) -> bool:
    return role.startswith(_WORKER)


def _raise_file_limit() -> None:
    """Connections, segments and chunks need more descriptors than the usual soft limit of 1,024. Children inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _clear_run_dir(path: Path) -> None:
    """Sockets, status pages and metrics of an earlier life say nothing true any more."""
    shutil.rmtree(path, ignore_errors=True)
    (path / "metrics").mkdir(parents=True, mode=0o700, exist_ok=True)
