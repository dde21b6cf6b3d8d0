"""Proofs that producers put into audit records: `audit.integrity.value`, checked against keys that the operator trusts.

    RS256, RS512    RSA PKCS #1 v1.5 over SHA-256, SHA-512
    ES256           ECDSA on P-256 over SHA-256; the signature in DER, or as the 64 bytes of JWA
    EdDSA           Ed25519
    HMAC-SHA256, HMAC-SHA512

The key is the one that the resource names in `audit.integrity.certificate`: by the whole certificate, by its fingerprint, or by
a name that the operator gave it; when it names none, any trusted key of the algorithm's kind. A certificate that comes along
with a record proves nothing by itself: it must be one of the trusted.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from tallystick.protocols.audit_record import FORMS, AuditRecord

VerifyStatus = Literal["passed", "failed", "deferred"]
_HASHES: Mapping[str, hashes.HashAlgorithm] = {"RS256": hashes.SHA256(), "RS512": hashes.SHA512()}
_MACS = {"HMAC-SHA256": "sha256", "HMAC-SHA512": "sha512"}
_RAW_ES256 = 64

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class TrustedKey:
    """A key under the operator's name for it: a public key, or a secret for HMAC. ``der``: the certificate it came in."""

    name: str
    key: PublicKey | bytes
    der: bytes = b""

    @classmethod
    def of_pem(cls, name: str, pem: bytes) -> TrustedKey:
        """From a certificate or a public key in PEM. Raises ValueError."""
        if b"BEGIN CERTIFICATE" in pem:
            certificate = x509.load_pem_x509_certificate(pem)
            key, der = certificate.public_key(), certificate.public_bytes(serialization.Encoding.DER)
        else:
            key, der = serialization.load_pem_public_key(pem), b""  # type: ignore[assignment]
        if not isinstance(key, PublicKey):
            raise ValueError("neither RSA nor ECDSA nor Ed25519")
        return cls(name, key, der)

    def is_named(self, reference: str) -> bool:
        """Whether `audit.integrity.certificate` means this one."""
        if reference == self.name:
            return True
        if not self.der:
            return False
        digests = [(kind, hashes.Hash(algorithm)) for kind, algorithm in (("sha256", hashes.SHA256()), ("sha1", hashes.SHA1()))]  # noqa: S303
        for kind, digest in digests:
            digest.update(self.der)
            if reference == f"{kind}:{digest.finalize().hex()}":
                return True
        return reference == base64.b64encode(self.der).decode()

    def verifies(self, algorithm: str, value: bytes, message: bytes) -> bool:
        """Whether ``value`` is this key's proof for ``message``; False for an algorithm of another kind of key."""
        key = self.key
        try:
            match key:
                case bytes():
                    kind = _MACS.get(algorithm)
                    return kind is not None and hmac.compare_digest(hmac.digest(key, message, kind), value)
                case rsa.RSAPublicKey() if algorithm in _HASHES:
                    key.verify(value, message, padding.PKCS1v15(), _HASHES[algorithm])
                case ec.EllipticCurvePublicKey() if algorithm == "ES256" and isinstance(key.curve, ec.SECP256R1):
                    key.verify(_der_signature(value), message, ec.ECDSA(hashes.SHA256()))
                case ed25519.Ed25519PublicKey() if algorithm == "EdDSA":
                    key.verify(value, message)
                case _:
                    return False
        except (InvalidSignature, ValueError):
            return False
        return True


class Verdict(NamedTuple):
    """What became of a record's proof, and why."""

    status: VerifyStatus
    reason: str = ""


def verify(record: AuditRecord, keys: Iterable[TrustedKey]) -> Verdict:
    """Check the proof of ``record``. `deferred`: there is none, or none of ours can check it; the record keeps it."""
    value = record.text("audit.integrity.value")
    if not value:
        return Verdict("deferred", "the record has no audit.integrity.value")
    scheme = record.text("audit.integrity.canonicalization") or "jcs"
    if scheme != "jcs":
        return Verdict("deferred", f"the canonicalization {scheme[:40]!r} is not known here")
    algorithm = record.resource_text("audit.integrity.algorithm")
    reference = record.resource_text("audit.integrity.certificate")
    named = [key for key in keys if _fits(key, algorithm) and (not reference or key.is_named(reference))]
    if not named:
        return Verdict("deferred", f"no trusted key for {algorithm[:40] or 'no algorithm'} {reference[:80]}".strip())
    try:
        proof = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return Verdict("failed", "audit.integrity.value is no base64")
    messages = [record.canonical(form, is_signed_part=True) for form in FORMS]
    if any(key.verifies(algorithm, proof, message) for key in named for message in messages):
        return Verdict("passed")
    return Verdict("failed", "audit.integrity.value does not fit the record")


def _fits(key: TrustedKey, algorithm: str) -> bool:
    if isinstance(key.key, bytes):
        return algorithm in _MACS
    kinds = {
        "RS256": rsa.RSAPublicKey,
        "RS512": rsa.RSAPublicKey,
        "ES256": ec.EllipticCurvePublicKey,
        "EdDSA": ed25519.Ed25519PublicKey,
    }
    kind = kinds.get(algorithm)
    return kind is not None and isinstance(key.key, kind)


def _der_signature(value: bytes) -> bytes:
    if len(value) != _RAW_ES256:
        return value
    half = _RAW_ES256 // 2
    return utils.encode_dss_signature(int.from_bytes(value[:half], "big"), int.from_bytes(value[half:], "big"))
