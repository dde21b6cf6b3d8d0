"""EIO and ENOSPC on writes and syncs of the intake; slow syncs; the full disk; EIO when followers read."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fault.conftest import MakeServer
from support.faults import fill, goes_red, mounted, needs_root, needs_strace, role_pid, standin, wait_intake, wait_until
from support.ledger import Ledger, LedgerError, Load
from support.server import Server
from support.trace import Judged, judge_trace, strace, traced

Note = Callable[[str, int, str], None]
JOURNAL = "/journal/"


def run_failing(
    fault_server: MakeServer, trace: Path, inject: str, expected: int, **environment: str
) -> tuple[Ledger, Judged, Server]:
    """One request after another while a fault is injected, until ``expected`` is answered; then the trace is judged."""
    ledger = Ledger()
    target = fault_server('[journal]\nsegment_size = "1MiB"\n', environment=environment).start(wait=False)
    wait_intake(target)
    assert ledger.send(target.http, *ledger.make("before", 5)) == 200
    with traced(role_pid(target, "intake"), trace, "-e", f"inject={inject}"):
        for number in range(12):
            status = ledger.send(target.http, *ledger.make(f"during{number}", 5))
            if status == 503:
                break
            time.sleep(0.05)
        if status != expected:
            raise LedgerError(f"answered {status}, expected {expected}")
        if expected == 503:
            wait_intake(target, status=503)
    judged = judge_trace(trace)
    return ledger, judged, target


ONCE = [
    "fdatasync:error=EIO:when=3",
    "fdatasync:error=ENOSPC:when=3",
    "pwrite64:error=EIO:when=3",
    "pwrite64:error=ENOSPC:when=3",
    "pwrite64:error=EINTR:when=3",
]


@needs_strace
@pytest.mark.timeout(600)
@pytest.mark.parametrize("inject", [ONCE[0], *(pytest.param(item, marks=pytest.mark.slow_fault) for item in ONCE[1:])])
def test_one_failed_write_or_sync(fault_server: MakeServer, tmp_path: Path, note: Note, inject: str) -> None:
    """The poisoned segment is left for a new one: every 2xx in the trace has a sync that returned 0; kill -9, then all is there."""
    ledger = Ledger()
    target = fault_server('[journal]\nsegment_size = "1MiB"\n').start(wait=False)
    wait_intake(target)
    trace = tmp_path / "trace"
    is_full = "ENOSPC" in inject
    with traced(role_pid(target, "intake"), trace, "-e", f"inject={inject}"):
        for number in range(8):
            status = ledger.send(target.http, *ledger.make(f"s{number}", 5))
            assert status in ((200, 503) if is_full else (200,)), status
    judged = judge_trace(trace)
    assert judged.failed_syncs == (1 if inject.startswith("fdatasync") else 0)
    assert judged.new_segments >= (0 if is_full or "EINTR" in inject else 1)
    wait_intake(target)  # ENOSPC heals by itself
    wait_until(lambda: ledger.send(target.http, *ledger.make("after", 5)) == 200, "an answer of 200 after the fault")
    target.kill()
    target.start(wait=False)
    ledger.judge(target)
    note(
        f"intake: {inject}",
        8,
        f"answers {dict(ledger.statuses)}, {judged.new_segments} new segments, {judged.failed_syncs} failed syncs",
    )


@needs_strace
@pytest.mark.timeout(600)
def test_failed_sync_goes_red(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """A server that takes a failed fdatasync for success is caught: an answer without a completed sync."""
    with goes_red():
        run_failing(fault_server, tmp_path / "trace", "fdatasync:error=EIO:when=2+", 200, **standin("deaf_to_errors"))
    note("intake: fdatasync EIO, stand-in `deaf_to_errors`", 1, "goes red")


LASTING = [
    "fdatasync:error=EIO:when=2+",
    "pwrite64:error=EIO:when=2+",
    "fdatasync:error=ENOSPC:when=2+",
    "pwrite64:error=EDQUOT:when=2+",
]


@needs_strace
@pytest.mark.timeout(600)
@pytest.mark.parametrize("inject", [LASTING[0], *(pytest.param(item, marks=pytest.mark.slow_fault) for item in LASTING[1:])])
def test_lasting_failure(fault_server: MakeServer, tmp_path: Path, note: Note, inject: str) -> None:
    """The second failure stops intake: 503, ready red, nothing acknowledged that is not durable; when the disk works it goes on by itself."""
    ledger, _, target = run_failing(fault_server, tmp_path / "trace", inject, 503)
    code = target.http.get("/healthz/ready").text
    intake = role_pid(target, "intake")
    wait_intake(target)
    assert role_pid(target, "intake") == intake
    wait_until(lambda: ledger.send(target.http, *ledger.make("after", 5)) == 200, "an answer of 200 after the fault")
    ledger.judge(target)
    note(f"intake: {inject}", 1, f"answers {dict(ledger.statuses)}; ready while it lasted: {code[:120]}")


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(600)
def test_lasting_failure_goes_red(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """A server that says yes to what its journal refused is caught."""
    with goes_red():
        run_failing(fault_server, tmp_path / "trace", LASTING[0], 503, **standin("yes_to_all"))
    note("intake: lasting EIO, stand-in `yes_to_all`", 1, "goes red")


def run_slow(fault_server: MakeServer, **environment: str) -> tuple[Ledger, float]:
    ledger = Ledger()
    target = fault_server('[journal]\nqueue = "1MiB"\n', environment=environment).start(wait=False)
    wait_intake(target)
    seconds = []
    with strace([role_pid(target, "intake")], "-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_exit=2000000"):
        started = time.monotonic()
        assert ledger.send(target.http, *ledger.make("slow", 5)) == 200
        seconds.append(time.monotonic() - started)
        if seconds[0] < 2:
            raise LedgerError(f"answered after {seconds[0]:.2f} s, while a sync takes 2 s")
        with Load(target, ledger, senders=8, batch=60, pad=8000):
            wait_until(lambda: ledger.statuses[503] > 0, "a full queue to be refused", 90)
            assert target.http.get("/healthz/live").status_code == 200
    wait_intake(target)
    started = time.monotonic()
    wait_until(lambda: ledger.send(target.http, *ledger.make("after", 5)) == 200, "an answer of 200 after the fault", 60)
    target.kill()
    target.start(wait=False)
    ledger.judge(target)
    return ledger, seconds[0]


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_slow_sync(fault_server: MakeServer, note: Note) -> None:
    """fdatasync takes 2 s: answers come late but true, the queue is bounded and says 503, afterwards all is well."""
    ledger, seconds = run_slow(fault_server)
    note("fdatasync takes 2 s", 1, f"first answer after {seconds:.1f} s; answers {dict(ledger.statuses)}")


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_slow_sync_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that does not wait for the sync is caught."""
    with goes_red():
        run_slow(fault_server, **standin("lying_sync"))
    note("fdatasync takes 2 s, stand-in `lying_sync`", 1, "goes red")


def run_full(fault_server: MakeServer, disk: Path, when: str = "at once", **environment: str) -> tuple[Ledger, str]:
    ledger = Ledger()
    target = fault_server(directory=disk, environment=environment).start(wait=False)
    wait_intake(target)
    with Load(target, ledger, senders=2, batch=10, pad=600):  # slow enough not to fill the disk by itself
        wait_until(lambda: ledger.count() > 500, "some events to be accepted")
        if when != "at once":
            target.wait_api()
        ballast = fill(disk)
        wait_until(lambda: ledger.statuses[503] > 3, "a refusal for want of space", 30)
        if when == "then started again":
            target.kill()
            target.start(wait=False)
        wait_intake(target, 30, status=503)
        answer = target.send(ledger.make("full", 1)[1])
        if answer.status_code != 503 or answer.json()["code"] != "disk_full" or "retry-after" not in answer.headers:
            raise LedgerError(f"a full disk is answered with {answer.status_code} {answer.text[:300]}")
        refused = ledger.statuses[503]
        target.wait_api()
        wait_until(lambda: "intake: " in str(target.status()["reasons"]), "status to give the reason", 30)
        log = target.log.read_text(errors="replace")
        if "Traceback" in log or "role ended" in log:
            raise LedgerError(f"a full disk is no fault of the program\n{target.tail()}")
        ballast.unlink()
        wait_intake(target)
        before = ledger.count()
        wait_until(lambda: ledger.count() > before + 200, "intake to go on by itself")
    ledger.judge(target)
    return ledger, f"{refused} refusals with disk_full, {ledger.count()} events accepted"


@needs_root
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
@pytest.mark.parametrize("when", ["at once", "with all roles up", "then started again"])
def test_full_disk(fault_server: MakeServer, tmp_path: Path, note: Note, when: str) -> None:
    """A file system of 96 MiB is filled under load and freed again: 503 disk_full, recovery without help, nothing lost."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=96m", "tmpfs") as disk:
        try:
            _, seen = run_full(fault_server, disk, when)
        finally:
            fault_server.end()
    note(f"full disk (tmpfs 96 MiB), {when}; then freed", 1, seen)


@needs_root
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_full_disk_goes_red(fault_server: MakeServer, tmp_path: Path, note: Note) -> None:
    """A server that says yes to what its journal refused is caught."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=96m", "tmpfs") as disk:
        try:
            with goes_red():
                run_full(fault_server, disk, **standin("yes_to_all"))
        finally:
            fault_server.end()
    note("full disk, stand-in `yes_to_all`", 1, "goes red")


def run_unreadable(fault_server: MakeServer, **environment: str) -> Ledger:
    ledger = Ledger()
    target = fault_server(environment=environment).start(wait=False)
    wait_intake(target)
    target.wait_api()
    assert ledger.send(target.http, *ledger.make("before", 50)) == 200
    followers = [role_pid(target, role) for role in ("sealer", "archiver", "dispatcher", "api")]
    segments = [argument for path in sorted((target.data / "journal").glob("*.seg")) for argument in ("-P", str(path))]
    with strace(followers, *segments, "-e", "trace=pread64", "-e", "inject=pread64:error=EIO"):
        for number in range(20):
            assert ledger.send(target.http, *ledger.make(f"during{number}", 20)) == 200
        wait_until(lambda: any("read" in reason for reason in target.status()["reasons"]), "status to say what cannot be read", 20)
    ledger.judge(target)
    return ledger


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_unreadable_for_a_while(fault_server: MakeServer, note: Note) -> None:
    """Reads of the active segment give EIO in every follower: status says so, and when they work again nothing is lost."""
    ledger = run_unreadable(fault_server)
    note("EIO on read of one segment, in every follower, for a while", 1, f"status red meanwhile; {ledger.count()} events accepted")


@needs_strace
@pytest.mark.slow_fault
@pytest.mark.timeout(900)
def test_unreadable_for_a_while_goes_red(fault_server: MakeServer, note: Note) -> None:
    """A server that passes over what it cannot read is caught."""
    with goes_red():
        run_unreadable(fault_server, **standin("unreadable_is_lost"))
    note("EIO on read, stand-in `unreadable_is_lost`", 1, "goes red")
