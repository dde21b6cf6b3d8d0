"""What mapped sample records must become, by jq expressions written by hand from the vendors' documentation.

The expressions know nothing of our mapping files. Each takes one document as a product sends it and gives one object a
record in it: ``action``, ``actor``, ``target`` (the first, as ``[type, id]``), ``outcome``, ``time`` (canonical, or null
when the record names none) and ``ip``; or ``{"quarantined": true}`` where no event can come of it.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "samples"

_COMMON = r"""
def text: if type == "string" and . != "" then . elif type == "number" or type == "boolean" then tostring else null end;
def first_text(f): [f | text | values] | .[0];
def address: if type != "string" then null
  elif test("^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$") then .
  elif test("^[0-9a-fA-F:]+:[0-9a-fA-F:.]*$") then . else null end;
def stamp: if type == "number" then
    "\((. / 1000 | floor) | strftime("%Y-%m-%dT%H:%M:%S")).\(("00\(. % 1000)")[-3:])000Z"
  elif type == "string" then
    (capture("^(?<d>[0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?<t>[0-9]{2}:[0-9]{2}:[0-9]{2})([.](?<f>[0-9]+))?Z?$")
      | "\(.d)T\(.t).\(((.f // "") + "000000")[0:6])Z") // null
  else null end;
"""

_CLOUDTRAIL = (
    _COMMON
    + r"""
def records:
  if type == "array" then .[] | records
  elif has("eventName") then .
  elif (.Records | type) == "array" then .Records[] | records
  elif (.Events | type) == "array" then .Events[] | records
  elif (.CloudTrailEvent | type) == "string" then .CloudTrailEvent | fromjson
  elif (.detail | type) == "object" then .detail | records
  elif (.data | type) == "object" then .data | records
  else . end;
def asked($name): .requestParameters | objects | .[$name] | text;
def is_iam: .eventSource == "iam.amazonaws.com";
def target:
  [ (.resources | arrays | .[] | objects | select((.ARN // .arn) != null) | [(.type // "resource"), (.ARN // .arn)]),
    (if asked("bucketName") and asked("key")
      then ["AWS::S3::Object", "arn:aws:s3:::\(asked("bucketName"))/\(asked("key"))"] else empty end),
    (asked("bucketName") | values | ["AWS::S3::Bucket", .]),
    (if is_iam then asked("userName") | values | ["AWS::IAM::User", .] else empty end),
    ((asked("roleName") // asked("roleArn")) | values | ["AWS::IAM::Role", .]),
    (if is_iam then asked("groupName") | values | ["AWS::IAM::Group", .] else empty end),
    (asked("policyArn") | values | ["AWS::IAM::ManagedPolicy", .]),
    (asked("secretId") | values | ["AWS::SecretsManager::Secret", .]),
    (asked("instanceId") | values | ["AWS::EC2::Instance", .]),
    (.requestParameters | objects | .instancesSet | objects | .items | arrays | .[] | .instanceId | text | values
      | ["AWS::EC2::Instance", .]),
    (select(.eventName == "RunInstances") | .responseElements | objects | .instancesSet | objects | .items | arrays | .[]
      | .instanceId | text | values | ["AWS::EC2::Instance", .]),
    (asked("groupId") | values | ["AWS::EC2::SecurityGroup", .]),
    (asked("imageId") | values | ["AWS::EC2::Image", .]),
    (asked("keyId") | values | ["AWS::KMS::Key", .]),
    (asked("functionName") | values | ["AWS::Lambda::Function", .]),
    (asked("dBInstanceIdentifier") | values | ["AWS::RDS::DBInstance", .]),
    (asked("dBClusterIdentifier") | values | ["AWS::RDS::DBCluster", .]),
    (asked("dBSnapshotIdentifier") | values | ["AWS::RDS::DBSnapshot", .]),
    (asked("tableName") | values | ["AWS::DynamoDB::Table", .]),
    (select(.eventSource == "cloudtrail.amazonaws.com") | (asked("trailName") // asked("name")) | values
      | ["AWS::CloudTrail::Trail", .])
  ] | .[0];
def outcome:
  (.errorCode // "") as $code
  | if ((.responseElements | objects | .ConsoleLogin) // "") == "Failure" then "failure"
    elif $code | test("AccessDenied|Unauthorized|Forbidden|NotAuthorized") then "denied"
    elif $code != "" or (.errorMessage // "") != "" then "failure"
    else "success" end;
def action:
  "\(.eventSource | split(".")[0]).\(.eventName)" as $whole
  | if $whole | test("^[A-Za-z0-9][A-Za-z0-9_./:-]*$") then $whole
    elif .eventName | test("^[A-Za-z0-9][A-Za-z0-9_./:-]*$") then .eventName
    else "cloudtrail.record" end;
records
| if (.eventName and .eventSource) | not then { quarantined: true } else
  { action: action,
    actor: (first_text(.userIdentity.arn, .userIdentity.onBehalfOf.userId, .userIdentity.userName,
                       .userIdentity.principalId, .userIdentity.invokedBy, .userIdentity.accountId) // "unknown"),
    target: target,
    outcome: outcome,
    time: (.eventTime | stamp),
    ip: (.sourceIPAddress | address) }
  end
"""
)

_GITHUB = (
    _COMMON
    + r"""
def records:
  if type == "array" then .[] | records
  elif has("action") then .
  elif (.message | type) == "string" and (.message | contains("github_audit: ")) then
    .message | .[(index("github_audit: ") + 14):] | fromjson
  elif (.event | type) == "object" then .event | records
  elif (.data | type) == "object" then .data | records
  else . end;
def target:
  [ (select(.action | test("member|_user|collaborator")) | .user | text | values | ["user", .]),
    (first_text(.repo, .repository) | values | ["repository", .]),
    (first_text(.team, (.data | objects | .team)) | values | ["team", .]),
    (.user | text | values | ["user", .]),
    (.org | text | values | ["organization", .]),
    (.business | text | values | ["enterprise", .])
  ] | .[0];
records
| if .action | not then { quarantined: true } else
  { action: .action,
    actor: (first_text(.actor, .external_identity_nameid) // "unknown"),
    target: target,
    outcome: (if .action | test("failed|failure") then "failure" elif .action | test("denied|rejected") then "denied" else "success" end),
    time: ([(.["@timestamp"] | stamp), (.created_at | stamp)] | map(values) | .[0]),
    ip: (.actor_ip | address) }
  end
"""
)

_KUBERNETES = (
    _COMMON
    + r"""
def records:
  if type == "array" then .[] | records
  elif has("verb") then .
  elif (.items | type) == "array" then .items[] | records
  elif (.properties | type) == "object" then .properties | records
  elif (.log | type) == "string" then .log | fromjson | records
  else . end;
def ref($name): (.objectRef | objects | .[$name] | text) // null;
def named($name): (.[$name] | objects | .metadata | objects | .name | text) // null;
def is_forbidden: ((.annotations | objects | .["authorization.k8s.io/decision"]) // "") == "forbid";
def target:
  if ref("resource") then
    (first_text(ref("name"), named("requestObject"), named("responseObject")) // (if ref("namespace") then "*" else null end)) as $name
    | [ref("resource"), (if $name == null then "*" elif ref("namespace") then "\(ref("namespace"))/\($name)" else $name end)]
  elif (.requestURI | text) then ["url", .requestURI]
  else null end;
def kind: if ref("resource") then
    ref("resource") + (if ref("subresource") then "/" + ref("subresource") else "" end)
  else "nonresource" end;
def outcome:
  ((.responseStatus | objects | .code) // 0) as $code
  | if is_forbidden or $code == 401 or $code == 403 then "denied"
    elif .stage == "Panic" or $code >= 400 then "failure"
    elif $code >= 100 then "success" else "unknown" end;
records
| if (.verb | text) | not then { quarantined: true } else
  { action: "\(kind).\(.verb)",
    actor: ((.user | objects | .username | text) // "unknown"),
    target: target,
    outcome: outcome,
    time: ([(.stageTimestamp | stamp), (.requestReceivedTimestamp | stamp)] | map(values) | .[0]),
    ip: ([.sourceIPs | arrays | .[] | values | select(. != "")] | .[0] | address) }
  end
"""
)

ORACLES = {"aws_cloudtrail": _CLOUDTRAIL, "github_audit": _GITHUB, "kubernetes_audit": _KUBERNETES}


@dataclass(frozen=True)
class Sample:
    """One document as a product sends it, with the file it is from and its number there."""

    mapping: str
    place: str
    document: bytes


def samples(mapping: str) -> list[Sample]:
    """All documents of one mapping's folder, in the order of their files."""
    folder = SAMPLES / mapping
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        Sample(mapping, f"{path.relative_to(SAMPLES)}:{number}", document)
        for path in files
        for number, document in enumerate(_documents(path), 1)
    ]


def expected(mapping: str, documents: list[bytes]) -> list[list[dict[str, Any]]]:
    """What jq makes of each document: a list of records. All in one run of the binary."""
    run = subprocess.run(["jq", "-c", _each(ORACLES[mapping])], input=b"\n".join(documents), capture_output=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


def observed(line: dict[str, Any]) -> dict[str, Any]:
    """The same members taken from a canonical line; ``time`` is null where the claim named none."""
    targets = line.get("targets", [])
    has_time = not {"time_invalid", "time_missing"} & set(line["ingest"].get("flags", []))
    return {
        "action": line["action"],
        "actor": line["actor"]["id"],
        "target": [targets[0]["type"], targets[0]["id"]] if targets else None,
        "outcome": line["outcome"],
        "time": line["occurred_at"] if has_time else None,
        "ip": line.get("context", {}).get("ip"),
    }


def _each(program: str) -> str:
    """The program with its results gathered in one array for each document."""
    definitions, _, body = program.rpartition("\nrecords\n")
    return f"{definitions}\n[records\n{body}]"


def _documents(path: Path) -> Iterator[bytes]:
    text = path.read_bytes()
    if path.name.startswith("streamalert_"):  # test cases around the records; what was sent is in `data`
        for case in json.loads(text):
            yield json.dumps(case["data"]).encode()
    elif path.suffix == ".json":
        yield text
    else:
        # GKE's Cloud Audit Logs, which lie in the same file, are another product's form.
        yield from (line for line in text.split(b"\n") if line.strip() and b'"protoPayload"' not in line)
