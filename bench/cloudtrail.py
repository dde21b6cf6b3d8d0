"""Records of AWS CloudTrail as its documentation shows them, about 1,450 bytes each: the kinds that are most of an account's log."""

from __future__ import annotations

import json
from typing import Any

_AGENTS = ("aws-cli/2.13.5 Python/3.11.4 Linux/5.10.0", "Boto3/1.28.5 md/Botocore#1.31.5", "console.amazonaws.com", "AWS Internal")


def _assumed(number: int) -> dict[str, Any]:
    role = f"role-{number % 37}"
    return {
        "type": "AssumedRole",
        "principalId": f"AROAEXAMPLE{number % 37:09d}:session-{number % 997}",
        "arn": f"arn:aws:sts::123456789012:assumed-role/{role}/session-{number % 997}",
        "accountId": "123456789012",
        "accessKeyId": f"ASIAEXAMPLE{number % 997:09d}",
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": f"AROAEXAMPLE{number % 37:09d}",
                "arn": f"arn:aws:iam::123456789012:role/{role}",
                "accountId": "123456789012",
                "userName": role,
            },
            "webIdFederationData": {},
            "attributes": {"creationDate": "2026-03-04T09:30:00Z", "mfaAuthenticated": "false"},
        },
    }


def _person(number: int) -> dict[str, Any]:
    return {
        "type": "IAMUser",
        "principalId": f"AIDAEXAMPLE{number % 97:09d}",
        "arn": f"arn:aws:iam::123456789012:user/person-{number % 97}",
        "accountId": "123456789012",
        "accessKeyId": f"AKIAEXAMPLE{number % 97:09d}",
        "userName": f"person-{number % 97}",
    }


_SERVICE = {"type": "AWSService", "invokedBy": "ec2.amazonaws.com"}
_KINDS: tuple[tuple[str, str, Any, dict[str, Any], dict[str, Any] | None], ...] = (
    ("ec2", "DescribeInstances", _assumed, {"instancesSet": {"items": [{"instanceId": "i-0abcd1234efgh5678"}]}, "filterSet": {}}, None),
    (
        "s3",
        "GetObject",
        _assumed,
        {"bucketName": "acme-reports", "key": "2026/03/04/report.parquet", "Host": "acme-reports.s3.eu-west-1.amazonaws.com"},
        None,
    ),
    ("iam", "CreateUser", _person, {"userName": "new-person"}, {"user": {"path": "/", "userName": "new-person", "userId": "AIDAEXAMPLE000000001"}}),
    ("sts", "AssumeRole", lambda number: _SERVICE, {"roleArn": "arn:aws:iam::123456789012:role/web", "roleSessionName": "i-0abcd1234efgh5678", "durationSeconds": 3600}, None),
    ("kms", "Decrypt", _assumed, {"encryptionContext": {"aws:s3:arn": "arn:aws:s3:::acme-reports"}, "encryptionAlgorithm": "SYMMETRIC_DEFAULT"}, None),
    ("ec2", "DescribeVolumes", _assumed, {"volumeSet": {}, "filterSet": {"items": [{"name": "status", "valueSet": {"items": [{"value": "available"}]}}]}}, None),
    ("ec2", "TerminateInstances", _person, {"instancesSet": {"items": [{"instanceId": "i-0abcd1234efgh5678"}]}}, {"instancesSet": {"items": [{"instanceId": "i-0abcd1234efgh5678"}]}}),
)  # fmt: skip


def record(number: int) -> dict[str, Any]:
    """One record; every 29th was refused."""
    service, name, identity, asked, answered = _KINDS[number % len(_KINDS)]
    found = {
        "eventVersion": "1.09",
        "userIdentity": identity(number),
        "eventTime": f"2026-03-04T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "eventSource": f"{service}.amazonaws.com",
        "eventName": name,
        "awsRegion": "eu-west-1",
        "sourceIPAddress": f"203.0.{number % 113}.{number % 251}",
        "userAgent": _AGENTS[number % len(_AGENTS)],
        "requestParameters": asked,
        "responseElements": answered,
        "requestID": f"{number:08x}-1111-4222-8333-444455556666",
        "eventID": f"{number:08x}-aaaa-4bbb-8ccc-ddddeeeeffff",
        "readOnly": name.startswith(("Describe", "Get", "Decrypt")),
        "eventType": "AwsApiCall",
        "managementEvent": True,
        "recipientAccountId": "123456789012",
        "eventCategory": "Management",
        "tlsDetails": {
            "tlsVersion": "TLSv1.3",
            "cipherSuite": "TLS_AES_128_GCM_SHA256",
            "clientProvidedHostHeader": f"{service}.eu-west-1.amazonaws.com",
        },
    }
    if number % 29 == 0:
        found |= {"errorCode": "AccessDenied", "errorMessage": "User is not authorized to perform this operation"}
    return found


def records(count: int) -> list[bytes]:
    """As they come: one a record, without blanks."""
    return [json.dumps(record(number), separators=(",", ":")).encode() for number in range(count)]
