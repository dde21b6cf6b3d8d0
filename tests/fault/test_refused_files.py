"""The intake may not open files any more: a read-only or forbidden file system, a directory that went away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fault.conftest import MakeServer
from support.faults import goes_red, needs_strace, role_pid, standin, wait_intake, wait_until
from support.ledger import Ledger, LedgerError, Load
from support.trace import strace

Note = Callable[[str, int, str], None]
REASONS = {"EROFS": "Read-only file system", "EACCES": "Permission denied", "ENOENT": "No such file or directory"}


def run_refused(fault_server: MakeServer, error: str, **environment: str) -> tuple[Ledger, str]:
    """Under load, with small segments so that a new file is soon needed, every openat of the intake fails; then none."""
    ledger = Ledger()
    target = fault_server('[journal]\nsegment_size = "1MiB"\n', environment=environment).start(wait=False)
    wait_intake(target)
    with Load(target, ledger, senders=4, batch=100, pad=600):
        wait_until(lambda: ledger.count() > 300, "events to be accepted")
        intake = role_pid(target, "intake")
        with strace([intake], "-e", "trace=openat", "-e", f"inject=openat:error={error}"):
            wait_until(lambda: ledger.statuses[503] > 3, "refusals while no file can be opened", 60)
            wait_intake(target, 30, status=503)
            reasons = str(target.http.get("/healthz/ready").json()["reasons"])
            if REASONS[error] not in reasons:
                raise LedgerError(f"ready does not say why: {reasons}")
        wait_intake(target)
        if role_pid(target, "intake") != intake:
            raise LedgerError("the intake ended over a file that it could not open")
        before = ledger.count()
        wait_until(lambda: ledger.count() > before + 200, "intake to go on by itself")
    ledger.judge(target)
    return ledger, reasons


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(600)
@pytest.mark.parametrize("error", REASONS)
def test_no_file_can_be_opened(fault_server: MakeServer, note: Note, error: str) -> None:
    """503 and red with the reason while it lasts, nothing half-stored, and it goes on by itself in the same process."""
    ledger, reasons = run_refused(fault_server, error)
    note(f"intake: every openat fails with {error} for a while", 1, f"answers {dict(ledger.statuses)}; ready: {reasons[:100]}")


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_no_file_can_be_opened_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that says yes to what its journal had no file for is caught."""
    with goes_red():
        run_refused(fault_server, "EROFS", **standin("yes_to_all"))
    note("intake: every openat fails, stand-in `yes_to_all`", 1, "goes red")
