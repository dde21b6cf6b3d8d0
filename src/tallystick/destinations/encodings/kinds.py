"""What a target is, told by the last word of its type: `AWS::IAM::User`, `iam.googleapis.com/ServiceAccount` and `user` are users."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from tallystick.event import Target

_KINDS = {
    "user": "user users appuser member account iammember serviceaccount serviceaccounts guest notguest person principal employee customer",
    "group": "group groups team organization org securitygroupmembership",
    "privilege": "role roles iamrole clusterrole managedpolicy policy permission scope privilege",
    "service": "application app appinstance connectedapp service program",
    "host": "host hosts server device node computer",
    "file": "file files document folder path",
    "database": "database db dbinstance schema warehouse",
    "table": "table tables view relation",
    "bucket": "bucket s3bucket gcsbucket",
    "url": "url uri apipath",
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words.split()}
_LAST = re.compile(r"[^.:/]+\Z")
_JOINTS = re.compile(r"[\s_-]+")


@lru_cache(maxsize=4096)
def kind_of(target_type: str) -> str:
    """The kind, or empty."""
    last = _LAST.search(target_type)
    return _KIND_OF.get(_JOINTS.sub("", last[0]).lower(), "") if last else ""


def first_of(targets: Iterable[Target], kind: str) -> Target | None:
    """The first target of a kind."""
    return next((target for target in targets if kind_of(target.type) == kind), None)
