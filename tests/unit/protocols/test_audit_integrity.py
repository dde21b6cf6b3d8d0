"""Proofs in audit records: every algorithm, every way to name a key, and every way to be wrong."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from support.audit import audit_record, signed
from support.certificates import Authority
from support.otlp import any_value
from tallystick.protocols.audit_integrity import TrustedKey, verify
from tallystick.protocols.audit_record import AuditRecord
from tallystick.protocols.otlp import decode_protobuf

RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
SECRET = b"0123456789abcdef"
Sign = Callable[[bytes], bytes]


def raw_es256(text: bytes) -> bytes:
    r, s = utils.decode_dss_signature(P256.sign(text, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


ALGORITHMS: list[tuple[str, str, Sign]] = [
    ("RS256", "rsa", lambda text: RSA.sign(text, padding.PKCS1v15(), hashes.SHA256())),
    ("RS512", "rsa", lambda text: RSA.sign(text, padding.PKCS1v15(), hashes.SHA512())),
    ("ES256", "p256", lambda text: P256.sign(text, ec.ECDSA(hashes.SHA256()))),
    ("ES256", "p256", raw_es256),
    ("EdDSA", "ed", ED.sign),
    ("HMAC-SHA256", "hmac", lambda text: hmac.digest(SECRET, text, "sha256")),
    ("HMAC-SHA512", "hmac", lambda text: hmac.digest(SECRET, text, "sha512")),
]
KEYS = [
    TrustedKey("hmac", SECRET),
    *(
        TrustedKey.of_pem(
            name, key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
        for name, key in (("rsa", RSA), ("p256", P256), ("ed", ED))
    ),
]  # fmt: skip


def read(request: ExportLogsServiceRequest) -> AuditRecord:
    (group,) = decode_protobuf(request.SerializeToString(), 29, 10)
    return AuditRecord.of(group.as_request(group.encoded[0]))


@pytest.mark.parametrize(("algorithm", "name", "sign"), ALGORITHMS)
def test_a_proof_that_fits_passes(algorithm: str, name: str, sign: Sign) -> None:
    """With the key named or not, with a structured body; the other keys do not get in the way."""
    for certificate in ("", name):
        request = signed(audit_record(body={"a": "b"}, count=3), sign, algorithm, certificate)
        assert verify(read(request), KEYS).status == "passed"


@pytest.mark.parametrize(("algorithm", "name", "sign"), ALGORITHMS)
def test_a_record_that_was_changed_fails(algorithm: str, name: str, sign: Sign) -> None:
    """Another attribute, body, time or name: any change at all."""
    for change in range(4):
        request = signed(audit_record(body="done"), sign, algorithm, name)
        record = request.resource_logs[0].scope_logs[0].log_records[0]
        if change == 0:
            record.attributes[1].value.CopyFrom(any_value("u1"))
        elif change == 1:
            record.body.string_value = "undone"
        elif change == 2:
            record.time_unix_nano += 1
        else:
            record.event_name = "user.login.failure"
        assert verify(read(request), KEYS).status == "failed"


def test_the_collectors_form_passes_too() -> None:
    """Integers as text and a plain body, as its signing processor has them."""
    record = audit_record(body="done", count=5)
    text = read(signed(record, ED.sign, "EdDSA")).canonical(is_signed_part=True)
    other = text.replace(b'{"intValue":5}', b'{"intValue":"5"}').replace(b'{"stringValue":"done"}', b'"done"')
    assert text != other
    request = signed(record, lambda _: ED.sign(other), "EdDSA")
    assert verify(read(request), KEYS).status == "passed"


def test_without_a_trusted_key_nothing_is_said() -> None:
    """No proof, no key of that name or kind, an unknown algorithm or canonicalization: deferred, with the reason."""
    unsigned = verify(read(signed(audit_record(), ED.sign, "EdDSA")), [])
    assert (unsigned.status, "no trusted key" in unsigned.reason) == ("deferred", True)
    for algorithm, certificate in (("EdDSA", "somebody"), ("RS256", "ed"), ("PS256", ""), ("", ""), ("HMAC-SHA256", "ed")):
        assert verify(read(signed(audit_record(), ED.sign, algorithm, certificate)), KEYS).status == "deferred"
    record = audit_record(audit__integrity__canonicalization="cbor")
    assert verify(read(signed(record, ED.sign, "EdDSA")), KEYS).status == "deferred"


def test_what_is_no_signature_at_all_fails() -> None:
    """Not base64, empty bytes, the wrong length."""
    for value in (b"", b"\x00" * 64, b"short"):
        assert verify(read(signed(audit_record(), lambda _, value=value: value or b"\0", "EdDSA")), KEYS).status == "failed"
    request = signed(audit_record(), ED.sign, "EdDSA")
    request.resource_logs[0].scope_logs[0].log_records[0].attributes[-1].value.string_value = "*"
    assert verify(read(request), KEYS).status == "failed"


def test_a_certificate_is_named_by_itself_or_by_its_fingerprint(tmp_path: Path) -> None:
    """Whole, by SHA-256 or SHA-1, or by the operator's name; one that only comes along with the record is not trusted."""
    pair = Authority(tmp_path).issue("producer")
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    trusted = TrustedKey.of_pem("producer", pair.cert.read_bytes())
    whole = base64.b64encode(trusted.der).decode()
    names = [
        "producer",
        whole,
        f"sha256:{hashlib.sha256(trusted.der).hexdigest()}",
        f"sha1:{hashlib.sha1(trusted.der).hexdigest()}",
    ]

    def sign(text: bytes) -> bytes:
        return key.sign(text, ec.ECDSA(hashes.SHA256()))

    for name in names:
        assert verify(read(signed(audit_record(), sign, "ES256", name)), [trusted]).status == "passed"
        assert verify(read(signed(audit_record(), sign, "ES256", name)), KEYS).status == "deferred"


def test_only_keys_that_can_be_checked_are_loaded() -> None:
    """An ECDSA key on another curve checks nothing; what is no key is refused."""
    other = ec.generate_private_key(ec.SECP384R1())
    pem = other.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert not TrustedKey.of_pem("x", pem).verifies("ES256", other.sign(b"m", ec.ECDSA(hashes.SHA256())), b"m")
    with pytest.raises(ValueError):
        TrustedKey.of_pem("x", b"no key")
