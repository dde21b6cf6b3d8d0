"""Records of the Linux audit system."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.protocols.auditd import decode_hex, parse_audit
from tallystick.protocols.auditd_syscalls import X86_64

SYSCALL = (
    "type=SYSCALL msg=audit(1684329817.579:2995): arch=c000003e syscall=59 success=no exit=-13 a0=55 a1=CAFE auid=1000 uid=1000 euid=0 "
    'ses=7 comm="su" exe="/bin/su" key=(null)'
)


def test_lines_of_one_serial_are_one_record() -> None:
    """SYSCALL tells who; arguments, files and the title are decoded; registers are left alone; what says nothing is left out."""
    text = "\n".join(
        [
            'type=EXECVE msg=audit(1684329817.579:2995): argc=3 a0="su" a1=2D6C a2_len=8 a2[0]="ab" a2[1]=6364',
            SYSCALL + '\x1dSYSCALL=execve AUID="ann" UID="ann" EUID="root"',
            'type=PATH msg=audit(1684329817.579:2995): item=0 name="/bin" nametype=PARENT',
            'type=PATH msg=audit(1684329817.579:2995): item=1 name=2F62696E2F737520 nametype=NORMAL ouid=0OUID="root"',
            "type=PROCTITLE msg=audit(1684329817.579:2995): proctitle=7375002D6C",
            "type=EOE msg=audit(1684329817.579:2995):",
        ]
    )
    found = parse_audit(text)
    assert found is not None
    assert (found["type"], found["time"], found["serial"], found["call"]) == ("SYSCALL", "1684329817.579", "2995", "execve")
    assert (found["auid"], found["acts_as"], found["names"]["auid"], found["names"]["euid"]) == ("1000", "0", "ann", "root")
    assert (found["command"], found["proctitle"], found["a1"]) == ("su -l abcd", "su -l", "CAFE")
    assert found["files"] == [{"name": "/bin/su "}]
    assert found["lines"][-1]["names"] == {"ouid": "root"}
    assert "key" not in found


def test_what_happened_goes_before_who_did_it() -> None:
    """An AVC names the record; the fields of SYSCALL are there too."""
    found = parse_audit(
        SYSCALL.replace("type=SYSCALL", "node=web-1 type=SYSCALL")
        + '\ntype=AVC msg=audit(1684329817.579:2995): avc:  denied  { read write } for  pid=9 comm="cat" scontext=a tcontext=b'
    )
    assert found is not None
    assert (found["type"], found["avc"], found["permissions"], found["node"]) == ("AVC", "denied", "read write", "web-1")
    assert (found["comm"], found["exe"], found["auid"]) == ("cat", "/bin/su", "1000")


def test_a_program_s_message_and_an_unset_login() -> None:
    """`msg='…'` is taken apart, an account in hexadecimal decoded; an unset login id and question marks are nothing."""
    found = parse_audit(
        "type=USER_LOGIN msg=audit(1.5:7): pid=1 uid=0 auid=4294967295 ses=4294967295 "
        'msg=\'op=login acct=28696E76616C6964207573657229 exe="/usr/sbin/sshd" hostname=? addr=192.0.2.1 res=failed\'\x1dUID="root" AUID="unset"'
    )
    assert found == {
        "type": "USER_LOGIN", "time": "1.5", "serial": "7", "pid": "1", "uid": "0", "op": "login", "acct": "(invalid user)",
        "exe": "/usr/sbin/sshd", "addr": "192.0.2.1", "res": "failed", "names": {"uid": "root"},
    }  # fmt: skip


def test_what_is_no_record_is_none() -> None:
    """Another text, a record without its time, and lines of two records."""
    assert parse_audit("") is None
    assert parse_audit("hello") is None
    assert parse_audit("type=A msg=audit(): x") is None
    assert parse_audit("type=A msg=audit(1.0:1): a=1\ntype=B msg=audit(1.0:2): a=1") is None


def test_system_calls_have_their_numbers() -> None:
    """A few that everybody knows."""
    assert [X86_64[number] for number in (0, 2, 59, 87, 257, 322, 334)] == [
        "read",
        "open",
        "execve",
        "unlink",
        "openat",
        "execveat",
        "rseq",
    ]


@given(st.text(st.characters(exclude_characters="\0\x01", exclude_categories=("Cs",)), min_size=1, max_size=30))
def test_hexadecimal_comes_back(text: str) -> None:
    """UTF-8 in upper-case digits, as the kernel writes it."""
    assert decode_hex(text.encode().hex().upper()) == text


@given(st.text(max_size=200))
def test_no_text_breaks_it(text: str) -> None:
    """Whatever stands behind the head, there is a record; without one there is none or one."""
    assert parse_audit("type=A msg=audit(1.0:1): " + text.replace("\n", " ")) is not None
    found = parse_audit(text)
    assert found is None or "serial" in found
