"""Records of the Linux audit system: the lines of one serial number as one record. Pure; linear time.

    node=web type=SYSCALL msg=audit(1684329817.579:2995): arch=c000003e syscall=59 success=yes auid=1000 uid=0 comm="su"<1D>AUID="ann"
    type=EXECVE msg=audit(1684329817.579:2995): argc=2 a0="su" a1=2D6C6F67
    type=PATH msg=audit(1684329817.579:2995): item=0 name="/bin/su" nametype=NORMAL
    type=PROCTITLE msg=audit(1684329817.579:2995): proctitle=7375002D6C6F67

1. The record's *type* is that of the first line that is more than a supplement: a line that tells what happened (USER_AUTH, AVC, LOGIN,
   …) before SYSCALL, which tells who did it, before what only adds to it (PATH, CWD, EXECVE, …). Its fields and SYSCALL's are the record's
   members, the first line's going before; every other line is whole in ``lines``.
2. A value that the kernel does not trust (file names, commands, accounts) is quoted when it is plain and hexadecimal when it is not;
   it is decoded. Registers (``a0`` of SYSCALL) are hexadecimal too and are left alone.
3. ``msg='op=… res=success'`` of programs is taken apart; fields behind the character 1D (or of upper-case names) are the translation that
   auditd adds with ``log_format = ENRICHED`` and are kept under ``names``. Programs that show the log lose that character; the names stay.
4. What says nothing (``?``, ``(null)``, ``(none)``, an unset login or session id) is left out.
"""

from __future__ import annotations

import re
from typing import Any

from tallystick.protocols.auditd_syscalls import X86_64
from tallystick.protocols.keyvalue import put

_HEAD = re.compile(
    r"(?:.{0,256}?\bnode=(\S+) )?(?:.{0,256}?\b)?type=(\S+) msg=audit\((\d{1,12}\.\d{1,9}):(\d{1,20})\):?\s?(.*)", re.DOTALL
)
_FIELD = re.compile(
    r"([A-Za-z0-9_-]++(?:\[\d+\])?)=(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'\x1d]*?)(?=[\s\"'\x1d]|\Z|(?<=[0-9)])(?:ARCH|O?UID|AUID|OLD-AUID|SADDR)=))"
)
_AVC = re.compile(r"avc:\s+(denied|granted)\s+\{ ([^}]*)\}")
_UNTRUSTED_NAMES = """
acct cmd comm cwd data dir exe file grp host key list name new-disk new-fs obj_name old-disk old-fs path proctitle unit vm watch
"""
_UNTRUSTED = frozenset(_UNTRUSTED_NAMES.split())
_ARGUMENT = re.compile(r"a(\d{1,5})(?:\[(\d{1,5})\])?")
_HEX = re.compile(r"(?:[0-9A-F]{2})+")
_NOTHING = frozenset({"?", "(null)", "(none)", ""})
_UNSET = frozenset({"4294967295", "-1", "unset"})
_LOGIN_IDS = frozenset({"auid", "ses", "old-auid", "old-ses"})
_SUPPLEMENT_TYPES = """
PATH CWD EXECVE PROCTITLE SOCKADDR EOE IPC OBJ_PID FD_PAIR MQ_OPEN BPRM_FCAPS CAPSET MMAP NETFILTER_PKT KERN_MODULE
"""
_SUPPLEMENTS = frozenset(_SUPPLEMENT_TYPES.split())
_LINES_MAX = 10_000


def parse_audit(text: str) -> dict[str, Any] | None:
    """The record in these lines; None when the first line is no audit record, or lines of two records are mixed."""
    found: list[tuple[str, dict[str, Any], dict[str, str]]] = []
    time = serial = node = ""
    for line in text.split("\n")[:_LINES_MAX]:
        if not line.strip():
            continue
        head = _HEAD.match(line)
        if head is None or (serial and (head[3], head[4]) != (time, serial)):
            return None
        node, time, serial = head[1] or node, head[3], head[4]
        fields, names = _read_fields(head[2], head[5])
        found.append((head[2], fields, names))
    if not found:
        return None
    return _join(found, {"node": node, "time": time, "serial": serial})


def _join(found: list[tuple[str, dict[str, Any], dict[str, str]]], head: dict[str, str]) -> dict[str, Any]:
    """One record of its lines."""
    main = min(range(len(found)), key=lambda place: (_rank(found[place][0]), place))
    record: dict[str, Any] = {"type": found[main][0], **{name: value for name, value in head.items() if value}}
    names: dict[str, str] = {}
    lines: list[dict[str, Any]] = []
    call = next((place for place, (kind, _, _) in enumerate(found) if kind == "SYSCALL"), main)
    for place in dict.fromkeys((main, call)):
        record.update({name: value for name, value in found[place][1].items() if name not in record})
        names.update({name: value for name, value in found[place][2].items() if name not in names})
    for place, (kind, fields, own) in enumerate(found):
        if kind == "EXECVE" and "argv" in fields:
            record.setdefault("command", " ".join(fields["argv"]))
        elif kind == "PROCTITLE":
            record.setdefault("proctitle", fields.get("proctitle", ""))
        elif kind == "CWD":
            record.setdefault("cwd", fields.get("cwd", ""))
        if place not in (main, call) and kind not in ("EOE", "PROCTITLE", "CWD"):
            lines.append({"type": kind, **fields, **({"names": own} if own else {})})
    if "syscall" in record:
        record["call"] = _call_name(record, names)
    if lines:
        record["lines"] = lines
        paths = [line for line in lines if line["type"] == "PATH" and line.get("nametype") != "PARENT" and "name" in line]
        if paths:
            record["files"] = [{"name": path["name"]} for path in paths]
    if names:
        record["names"] = names
    if "auid" in record and "SYSCALL" in (found[main][0], found[call][0]) and record.get("euid", record["auid"]) != record["auid"]:
        record["acts_as"] = record["euid"]
    return record


def _rank(kind: str) -> int:
    if kind == "SYSCALL":
        return 1
    return 2 if kind in _SUPPLEMENTS else 0


def _call_name(record: dict[str, Any], names: dict[str, str]) -> str:
    number = str(record["syscall"])
    if "syscall" in names:
        return names["syscall"]
    if record.get("arch") == "c000003e" and number.isdecimal() and len(number) < 5 and int(number) < len(X86_64):
        return X86_64[int(number)]
    return number


def _read_fields(kind: str, text: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of one line, and the translations of some of them."""
    fields: dict[str, Any] = {}
    names: dict[str, str] = {}
    arguments: dict[int, dict[int, str]] = {}
    avc = _AVC.match(text)
    if avc is not None:
        fields |= {"avc": avc[1], "permissions": avc[2].strip()}
    for match in _FIELD.finditer(text):
        key, quoted, inner, plain = match.groups()
        if inner is not None and key == "msg":
            more, _ = _read_fields(kind, inner)
            for name, value in more.items():
                put(fields, name, value)
            continue
        value = quoted if quoted is not None else inner if inner is not None else plain
        argument = _ARGUMENT.fullmatch(key) if kind == "EXECVE" else None
        if quoted is None and inner is None and (argument is not None or key in _UNTRUSTED):
            value = decode_hex(value, separator=" " if key == "proctitle" else ",")
        if argument is not None:
            arguments.setdefault(int(argument[1]), {})[int(argument[2] or 0)] = value
        elif key.isupper():
            if value not in _UNSET:
                names[key.lower()] = value
        elif value not in _NOTHING and not (key in _LOGIN_IDS and value in _UNSET):
            put(fields, key, value)
    if arguments:
        fields["argv"] = ["".join(parts[place] for place in sorted(parts)) for _, parts in sorted(arguments.items())]
    return fields, names


def decode_hex(text: str, separator: str = ",") -> str:
    """What hexadecimal digits stand for (UTF-8); ``text`` itself when it is none. NUL and 01 stand between parts: ``separator`` does then."""
    if not _HEX.fullmatch(text):
        return text
    decoded = bytes.fromhex(text).decode("utf-8", "replace").rstrip("\0")
    return decoded.replace("\0", separator).replace("\x01", separator)
