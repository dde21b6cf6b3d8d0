"""Reads a system call trace of the intake and says whether each answer was earned.

The journal's frames have their numbers in clear (`docs/formats/journal.md`), and answers carry the ranges they stand for. So
for every 2xx on a socket it can be shown which bytes it speaks of, and that before the answer began to be sent

1. each of its indexes was in a frame whose write had ended,
2. an fdatasync of that file, begun after that write, had returned 0,
3. and, where the file had got its name since the trace began, an fsync of the directory, begun after the rename, had returned 0.

This decodes frames with code of its own.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FRAME = struct.Struct(">IIBBIQQ16sQI")
_SEGMENT_HEADER = 4096
_EVENTS = 1
_LINE = re.compile(r"(?P<pid>\d+) +(?P<time>[\d.]+) (?P<call>.*)")
_RANGES = re.compile(rb'"ranges":(\[\[.*?\]\])')
_PAIR = re.compile(rb"\[(\d+),(\d+)\]")
_CALLS = "trace=pwrite64,fdatasync,fsync,rename,write,sendto,sendmsg,writev"


class TraceError(AssertionError):
    """An answer that was not earned."""


@contextmanager
def strace(pids: Sequence[int], *arguments: str, output: Path | None = None) -> Iterator[None]:
    """strace on running processes and their threads, from when it has attached until the block ends."""
    command = ["strace", "-f", "-o", str(output or "/dev/null"), *arguments, *(f"--attach={pid}" for pid in pids)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for _ in pids:
            line = process.stderr.readline()
            assert "attached" in line, f"strace: {line}{process.stderr.read()}"
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()  # type: ignore[union-attr]


@contextmanager
def traced(pid: int, output: Path, *arguments: str) -> Iterator[None]:
    """A trace that `judge_trace` can read. ``arguments``: faults to inject meanwhile."""
    with strace([pid], "-yy", "-xx", "-s", "4000000", "-ttt", "-e", _CALLS, *arguments, output=output):
        yield


@dataclass
class _Call:
    """One finished call. ``begin`` and ``end`` are line numbers: the order in which strace saw things."""

    name: str
    text: str
    result: int
    begin: int
    end: int

    @property
    def path(self) -> str:
        """Of the descriptor, as strace -yy shows it after decoding."""
        match = re.match(r"\d+<(.*?)>[,)]", self.text)
        return _unhex(match[1]).decode("utf-8", "replace") if match else ""

    def data(self) -> bytes:
        """The first quoted buffer."""
        match = re.search(r'"((?:\\x[0-9a-f]{2})*)"', self.text)
        return _unhex(match[1]) if match else b""


@dataclass
class Judged:
    """What a trace showed."""

    answers: int = 0
    syncs: int = 0
    failed_syncs: int = 0
    new_segments: int = 0


_SENDS = ("write", "sendto", "sendmsg", "writev")


def judge_trace(path: Path) -> Judged:
    """Raises TraceError for the first answer that was not earned."""
    reading = _Reading()
    for call in _in_order_of_effect(_calls(path)):
        is_journal = call.path.endswith((".seg", ".tmp")) and "/journal/" in call.path
        if call.name == "pwrite64" and is_journal:
            reading.written(call)
        elif call.name in ("fdatasync", "fsync") and is_journal:
            reading.synced(call)
        elif call.name == "fsync" and call.result == 0 and call.path.endswith("/journal"):
            reading.directory_syncs.append(call)
        elif call.name == "rename" and call.result == 0:
            reading.renamed(call)
        elif call.name in _SENDS and "TCP" in call.path:
            reading.sent(call)
    return reading.judged


class _Reading:
    """What is known so far while a trace is read. Names of files are those that they have in the end."""

    def __init__(self) -> None:
        self.judged = Judged()
        self.directory_syncs: list[_Call] = []
        self._waiting: dict[str, list[tuple[int, list[tuple[bytes, int]]]]] = defaultdict(list)
        self._synced: dict[tuple[bytes, int], tuple[str, int]] = {}
        self._aliases: dict[str, str] = {}
        self._named_at: dict[str, int] = {}
        self._heads: dict[str, int] = {}

    def written(self, call: _Call) -> None:
        if call.result > 0:
            self._waiting[self._name(call.path)].append((call.end, list(_indexes(call.data()[: call.result]))))

    def synced(self, call: _Call) -> None:
        self.judged.syncs += call.result == 0
        self.judged.failed_syncs += call.result != 0
        name = self._name(call.path)
        done = [indexes for end, indexes in self._waiting[name] if end < call.begin]
        self._waiting[name] = [item for item in self._waiting[name] if item[0] >= call.begin]
        if call.result == 0:  # after a failure those writes are never proven by this file again
            self._synced.update((index, (name, call.end)) for indexes in done for index in indexes)

    def renamed(self, call: _Call) -> None:
        source, target = (_unhex(part).decode() for part in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', call.text)[:2])
        if target.endswith(".seg"):
            self._aliases[source] = target  # strace may still show the old name for a descriptor
            self._named_at[target] = call.end
            self._waiting[target] += self._waiting.pop(source, [])
            self.judged.new_segments += 1

    def sent(self, call: _Call) -> None:
        """The head of an answer and its body may come in one call or in two."""
        data = call.data()
        if data.startswith(b"HTTP/1.1 2"):
            self._heads[call.path] = call.begin
        ranges = _RANGES.search(data)
        if ranges is None or call.path not in self._heads:
            return
        begin = self._heads.pop(call.path)
        log = re.search(rb'"log":"[^"]*/log/([a-z2-7]{16})"', data)
        for first, count in _PAIR.findall(ranges[1]):
            for index in range(int(first), int(first) + int(count)):
                self._check_earned(log[1] if log else b"", index, begin)
        self.judged.answers += 1

    def _check_earned(self, handle: bytes, index: int, begin: int) -> None:
        name, synced_at = self._synced.get((handle, index), ("", 0))
        if not name or synced_at > begin:
            raise TraceError(f"index {index} was answered before its frame was synced (line {begin})")
        name = self._name(name)
        named_at = self._named_at.get(name, 0)
        if name.endswith(".tmp") or named_at > begin:
            raise TraceError(f"index {index} was answered before its file had its name (line {begin})")
        if named_at and not any(named_at < sync.begin and sync.end < begin for sync in self.directory_syncs):
            raise TraceError(f"index {index} was answered before the directory was synced (line {begin})")

    def _name(self, path: str) -> str:
        return self._aliases.get(path, path)


def _indexes(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(handle, index) of every event whose frame is in one write."""
    at = _SEGMENT_HEADER if data.startswith(b"TALLYSEG") else 0
    while at + _FRAME.size <= len(data):
        length, _, kind, _, _, _, _, handle, first_index, count = _FRAME.unpack_from(data, at)
        at += 8 + length
        if not length or at > len(data):
            return
        if kind == _EVENTS:
            yield from ((handle, index) for index in range(first_index, first_index + count))


def _calls(path: Path) -> Iterator[_Call]:
    """Whole calls, those that strace wrote in two parts put together."""
    begun: dict[str, tuple[str, int]] = {}
    with path.open(errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            match = _LINE.match(line)
            if match is None:
                continue
            text, begin = match["call"], number
            if text.endswith("<unfinished ...>"):
                begun[match["pid"]] = text.removesuffix("<unfinished ...>").rstrip(), number
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", text)
            if resumed:
                start, begin = begun.pop(match["pid"], ("", number))
                text = start + resumed[1]
            parts = re.match(r"(\w+)\((.*)\s*= (-?\d+)", text)
            if parts:
                yield _Call(parts[1], parts[2], int(parts[3]), begin, number)


def _in_order_of_effect(calls: Iterator[_Call]) -> list[_Call]:
    """An answer counts from where it began, everything else from where it was done: the hardest reading."""
    return sorted(calls, key=lambda call: call.begin if call.name in _SENDS else call.end)


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()
