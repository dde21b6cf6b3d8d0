"""The classes that are used: uid, category, activities and attributes, as each version of OCSF has them.

The tables say 1.8; ``AFTER_1_5`` and ``AFTER_1_1`` what came later. A test holds them to the published schemas.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Version = Literal["1.8", "1.5", "1.1"]
VERSIONS: dict[str, str] = {"1.8": "1.8.0", "1.5": "1.5.0", "1.1": "1.1.0"}

BASE, ACCOUNT, AUTHENTICATION, AUTHORIZE_SESSION, ENTITY, USER_ACCESS, GROUP = 0, 3001, 3002, 3003, 3004, 3005, 3006
WEB_RESOURCES, API, DATASTORE, FILE_HOSTING, NETWORK, HTTP, EVENT_LOG = 6001, 6003, 6005, 6006, 4001, 4002, 1008
OTHER = 99

_CATEGORIES = {
    0: "Uncategorized",
    1: "System Activity",
    3: "Identity & Access Management",
    4: "Network Activity",
    6: "Application Activity",
}


@dataclass(frozen=True, slots=True)
class OcsfClass:
    """``activities`` maps an operation to its id and caption, ``attributes`` are those that we may fill.

    ``host_actor``: the actor belongs to the profile `host`, which the event then claims.
    """

    uid: int
    name: str
    activities: dict[str, tuple[int, str]]
    attributes: frozenset[str]
    host_actor: bool = False
    category_uid: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "category_uid", self.uid // 1000)

    @property
    def category_name(self) -> str:
        return _CATEGORIES[self.category_uid]


def _activities(said: str) -> dict[str, tuple[int, str]]:
    """From ``operation=id Caption; …``."""
    table = {}
    for entry in filter(None, (part.strip() for part in said.split(";"))):
        operation, _, rest = entry.partition("=")
        number, _, caption = rest.partition(" ")
        table[operation] = int(number), caption
    return table


def _class(uid: int, name: str, activities: str, attributes: str, *, host_actor: bool = False) -> OcsfClass:
    return OcsfClass(uid, name, _activities(activities), frozenset(attributes.split()), host_actor)


_CLASSES = (
    _class(BASE, "Base Event", "", "actor raw_data_size", host_actor=True),
    _class(EVENT_LOG, "Event Log Activity", "clear=1 Clear", "actor src_endpoint log_name raw_data_size"),
    _class(
        ACCOUNT, "Account Change",
        "create=1 Create; enable=2 Enable; password_change=3 Password Change; password_reset=4 Password Reset; disable=5 Disable; delete=6 Delete;"
        "lock=9 Lock; mfa_enable=10 MFA Factor Enable; mfa_disable=11 MFA Factor Disable; unlock=12 Unlock",
        "actor src_endpoint http_request user raw_data_size",
    ),
    _class(
        AUTHENTICATION, "Authentication", "login=1 Logon; logout=2 Logoff; ticket=3 Authentication Ticket; service_ticket=4 Service Ticket Request; ticket_renew=5 Service Ticket Renew",
        "actor src_endpoint dst_endpoint http_request user session service raw_data_size",
    ),
    _class(
        AUTHORIZE_SESSION, "Authorize Session", "grant=1 Assign Privileges",
        "actor src_endpoint dst_endpoint http_request user session privileges raw_data_size",
    ),
    _class(
        ENTITY, "Entity Management",
        "create=1 Create; read=2 Read; update=3 Update; delete=4 Delete; move=5 Move; enroll=6 Enroll; unenroll=7 Unenroll; enable=8 Enable;"
        "disable=9 Disable",
        "actor src_endpoint http_request entity raw_data_size",
    ),
    _class(
        USER_ACCESS, "User Access Management", "grant=1 Assign Privileges; revoke=2 Revoke Privileges",
        "actor src_endpoint http_request user privileges resources raw_data_size",
    ),
    _class(
        GROUP, "Group Management",
        "grant=1 Assign Privileges; revoke=2 Revoke Privileges; add=3 Add User; remove=4 Remove User; delete=5 Delete; create=6 Create",
        "actor src_endpoint http_request user group raw_data_size",
    ),
    _class(NETWORK, "Network Activity", "login=1 Open; create=1 Open; logout=2 Close; delete=2 Close; refuse=5 Refuse",
           "actor src_endpoint dst_endpoint raw_data_size", host_actor=True),
    _class(
        HTTP, "HTTP Activity",
        "connect=1 Connect; delete=2 Delete; get=3 Get; head=4 Head; options=5 Options; post=6 Post; put=7 Put; trace=8 Trace; patch=9 Patch",
        "actor src_endpoint dst_endpoint http_request raw_data_size", host_actor=True,
    ),
    _class(
        WEB_RESOURCES, "Web Resources Activity",
        "create=1 Create; read=2 Read; update=3 Update; delete=4 Delete; search=5 Search; import=6 Import; export=7 Export; share=8 Share",
        "actor src_endpoint dst_endpoint http_request web_resources raw_data_size", host_actor=True,
    ),
    _class(API, "API Activity", "create=1 Create; read=2 Read; update=3 Update; delete=4 Delete",
           "actor src_endpoint dst_endpoint http_request api resources raw_data_size"),
    _class(
        DATASTORE, "Datastore Activity",
        "read=1 Read; update=2 Update; login=3 Connect; search=4 Query; create=6 Create; delete=7 Delete; list=8 List",
        "actor src_endpoint dst_endpoint http_request database databucket table raw_data_size",
    ),
    _class(
        FILE_HOSTING, "File Hosting Activity",
        "upload=1 Upload; download=2 Download; update=3 Update; delete=4 Delete; rename=5 Rename; copy=6 Copy; move=7 Move; restore=8 Restore;"
        "lock=10 Lock; unlock=11 Unlock; share=12 Share; unshare=13 Unshare; read=14 Open",
        "actor src_endpoint dst_endpoint http_request file raw_data_size",
    ),
)  # fmt: skip

AFTER_1_5: dict[int, str] = {HTTP: "patch", FILE_HOSTING: "http_request"}
AFTER_1_1: dict[int, str] = {
    BASE: "actor",
    ACCOUNT: "unlock",
    ENTITY: "src_endpoint http_request move enroll unenroll enable disable",
    AUTHORIZE_SESSION: "src_endpoint http_request",
    USER_ACCESS: "src_endpoint http_request resources",
    GROUP: "src_endpoint http_request",
    DATASTORE: "list",
}
HOST_ACTORS_1_1 = (AUTHORIZE_SESSION, ENTITY, USER_ACCESS, GROUP)
ABSENT_1_1 = (EVENT_LOG,)


class Schema:
    """One version: its classes by uid."""

    def __init__(self, version: Version) -> None:
        self.version = version
        self.full_version = VERSIONS[version]
        self.is_first = version == "1.1"
        self.classes = {one.uid: self._cut_to_size(one) for one in _CLASSES if not (self.is_first and one.uid in ABSENT_1_1)}

    def _cut_to_size(self, one: OcsfClass) -> OcsfClass:
        if self.version == "1.8":
            return one
        lacking = set(AFTER_1_5.get(one.uid, "").split())
        host_actor = one.host_actor
        if self.is_first:
            lacking |= {"raw_data_size", *AFTER_1_1.get(one.uid, "").split()}
            host_actor = (host_actor or one.uid in HOST_ACTORS_1_1) and "actor" not in lacking
        activities = {operation: found for operation, found in one.activities.items() if operation not in lacking}
        return OcsfClass(one.uid, one.name, activities, one.attributes - lacking, host_actor)


NEAREST = {
    "add": "create", "install": "create", "copy": "create", "upload": "create", "import": "create",
    "remove": "delete", "uninstall": "delete", "unenroll": "delete",
    "list": "read", "search": "read", "download": "read", "export": "read", "query": "read",
    "enable": "update", "disable": "update", "lock": "disable", "unlock": "enable", "move": "update", "rename": "update", "restore": "update",
    "share": "update", "unshare": "update", "reset": "update", "enroll": "create", "grant": "update", "revoke": "update",
    "clear": "delete", "start": "update", "stop": "update",
}  # fmt: skip
"""The operation that stands for another one in a class that does not have it."""


def find_activity(one: OcsfClass, operation: str) -> tuple[int, str] | None:
    """Id and caption of an operation in a class, or of the nearest one that the class has."""
    while operation:
        if operation in one.activities:
            return one.activities[operation]
        operation = NEAREST.get(operation, "")
    return None
