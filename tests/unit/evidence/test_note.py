"""Signed notes: the example of the specification, round trips, and everything that must be refused."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.errors import CheckpointError
from tallystick.evidence.note import open_note, parse_private_key, parse_vkey, private_key_text, sign_note, split_note, vkey

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
VKEY = vkey("example.com/log/a", KEY.public_key())

# The published example of Go's x/mod/sumdb/note: key PeterNeumann, text, and signature.
GO_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_note_of_another_implementation_opens() -> None:
    """A note signed by Go's library opens under its key, and its key text round-trips."""
    assert open_note(GO_NOTE, [GO_VKEY]).startswith("If you think")
    assert parse_vkey(GO_VKEY).key_id.hex() == "c74f20a3"
    assert vkey("PeterNeumann", parse_vkey(GO_VKEY).public) == GO_VKEY


@given(st.lists(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"], exclude_characters="�")), min_size=1))
@settings(max_examples=60, deadline=None)
def test_signed_text_comes_back(lines: list[str]) -> None:
    """What was signed is what opens, byte for byte, whatever the lines say."""
    text = "".join(f"{line}\n" for line in lines)
    note = sign_note(text, [("example.com/log/a", KEY)])
    assert open_note(note, [VKEY]) == text
    assert split_note(note)[0] == text


def test_key_texts_round_trip() -> None:
    """Private and public texts are read back; a changed id, name or byte is refused."""
    text = private_key_text("example.com/log/a", KEY)
    name, key = parse_private_key(text)
    assert (name, key.private_bytes_raw()) == ("example.com/log/a", KEY.private_bytes_raw())
    for bad in (text.replace("example", "exbmple"), text[:-4] + "AAA=", text[12:], VKEY):
        with pytest.raises(CheckpointError) as caught:
            parse_private_key(bad)
        assert bad[-20:] not in str(caught.value)
    for bad in (VKEY.replace("example", "exbmple"), VKEY[:-1], "name", "", "a b+00000000+AQ==", VKEY.replace("+AQ", "+Ag")):
        with pytest.raises(CheckpointError):
            parse_vkey(bad)


def test_unknown_signers_are_ignored_but_a_known_failure_is_not() -> None:
    """Sixteen foreign lines do no harm; one wrong signature by a known key spoils the note; no known key is no proof."""
    signers = [(f"witness{number}", OTHER) for number in range(16)]
    note = sign_note("text\n", [*signers, ("example.com/log/a", KEY)])
    assert open_note(note, [VKEY]) == "text\n"
    with pytest.raises(CheckpointError, match="no known key"):
        open_note(sign_note("text\n", signers), [VKEY])
    spoiled = note.replace("text\n", "tExt\n", 1)
    with pytest.raises(CheckpointError, match="does not belong"):
        open_note(spoiled, [VKEY])


def test_every_flipped_bit_is_refused() -> None:
    """No single bit of a note can change unseen."""
    note = sign_note("origin\n5\n", [("k", KEY)]).encode()
    key = vkey("k", KEY.public_key())
    for position in range(len(note)):
        for bit in range(8):
            changed = bytearray(note)
            changed[position] ^= 1 << bit
            try:
                text = bytes(changed).decode()
            except UnicodeDecodeError:
                continue
            with pytest.raises(CheckpointError):
                open_note(text, [key])


@pytest.mark.parametrize(
    "note",
    ["", "\n", "text\n", "text\n\n", "text\n\n— k\n", "text\n\n— k AAAA\n", "text\n\n- k AAAAAAAA\n", "a\tb\n\n— k AAAAAAAA\n",
     "text\n\n— k AAAAAAAA", "text\n\n— k+ AAAAAAAA\n", "text\n\n— k AAAAAAA*\n", "text\n\n" + "— k AAAAAAAA\n" * 101],
)  # fmt: skip
def test_malformed_notes_are_refused(note: str) -> None:
    """Text that is not built as a note is refused with a clear error."""
    with pytest.raises(CheckpointError):
        split_note(note)


def test_text_that_no_note_can_carry_is_not_signed() -> None:
    """Signing refuses text without its line break, control characters, and names with spaces or plus signs."""
    for text, name in (("text", "k"), ("te\x00xt\n", "k"), ("text\n", "k k"), ("text\n", "k+k"), ("text\n", "")):
        with pytest.raises(CheckpointError):
            sign_note(text, [(name, KEY)])
