"""The words of an action, and the operation that they name.

Products write actions in their own manner: `user.login`, `iam.CreateAccessKey`, `Microsoft.Compute/disks/write`, `app_uninstalled`,
`audit.ADD_USER`. The last part decides, and in it the first known verb: `ListAttachedGroupPolicies` lists. Parts that only say how it went (`user.login.failed`,
`…/getSecret/action`) are passed over; other words are not, or `login.attack_warning` would be a login.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

_PART = re.compile(r"[./:]+")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+[a-z]*")

_VERBS: dict[str, str] = {
    "create": (
        "create created creates new insert inserted register registered signup provision provisioned generate generated opened run"
    ),
    "add": "add added adds invite invited join joined",
    "read": (
        "read get got view viewed show shown describe head fetch fetched watch access accessed use used lookup check "
        "checked evaluate open"
    ),
    "list": "list listed enumerate",
    "search": "search searched find query queried select",
    "update": (
        "update updated updates change changed set put patch patched edit edited modify modified write wrote push "
        "converted replace replaced configure configured upgraded alter rotate rotated renew renewed transfer close "
        "closed reboot restart"
    ),
    "delete": (
        "delete deleted deletes deletion del destroy destroyed drop dropped trash trashed purge erase erased unregister "
        "deregister terminate terminated"
    ),
    "remove": "remove removed removes leave left kick kicked",
    "enable": "enable enabled activate activated reactivate unsuspend",
    "disable": "disable disabled deactivate deactivated suspend suspended block blocked archive archived",
    "grant": "grant granted assign assigned authorize allow attach attached",
    "revoke": "revoke revoked unassign unassigned detach detached deny",
    "login": (
        "login logon logged signin signon authenticate authenticated authentication auth sso connect connected assume assumed"
    ),
    "logout": "logout logoff signout signoff disconnect disconnected",
    "start": "start started",
    "stop": "stop stopped",
    "lock": "lock locked",
    "unlock": "unlock unlocked",
    "reset": "reset",
    "enroll": "enroll enrolled",
    "unenroll": "unenroll unenrolled",
    "install": "install installed",
    "uninstall": "uninstall uninstalled",
    "share": "share shared publish published",
    "unshare": "unshare unshared",
    "export": "export exported unload takeout clone cloned",
    "import": "import imported",
    "upload": "upload uploaded",
    "download": "download downloaded",
    "copy": "copy copied",
    "move": "move moved",
    "rename": "rename renamed",
    "restore": "restore restored recover recovered",
    "encrypt": "encrypt encrypted",
    "decrypt": "decrypt decrypted",
    "clear": "clear cleared",
}
_OPERATIONS = {verb: operation for operation, verbs in _VERBS.items() for verb in verbs.split()}
_RESULTS = frozenset(
    {
        "success",
        "successful",
        "succeeded",
        "fail",
        "failed",
        "failure",
        "denied",
        "error",
        "completed",
        "attempt",
        "attempted",
        "action",
        "result",
        "ok",
    }
)
_LOGIN_PAIRS = {("log", "in"): "login", ("sign", "in"): "login", ("log", "out"): "logout", ("sign", "out"): "logout"}


class Words(NamedTuple):
    """All words of an action, lower case, and the operation; empty where no word names one."""

    all: frozenset[str]
    operation: str


@lru_cache(maxsize=4096)
def words_of(action: str) -> Words:
    """The words of an action."""
    parts = [_split(part) for part in _PART.split(action)]
    telling = next((words for words in reversed(parts) if not _RESULTS.issuperset(words)), [])
    operation = _operation(telling)
    return Words(frozenset(word for words in parts for word in words), operation)


def _split(part: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(part)]
    for place in range(len(words) - 1):
        joined = _LOGIN_PAIRS.get((words[place], words[place + 1]))
        if joined:
            words[place] = joined
    return words


def _operation(words: list[str]) -> str:
    return next((_OPERATIONS[word] for word in words if word in _OPERATIONS), "")


CODES: dict[str, dict[str, str]] = {
    "Windows": {
        "windows.1102": "clear",
        "windows.4672": "session grant",
        "windows.4768": "ticket", "windows.4771": "ticket", "windows.4769": "service_ticket", "windows.4770": "ticket_renew", "windows.4776": "login",
        "windows.4624": "login", "windows.4625": "login", "windows.4648": "login", "windows.4634": "logout", "windows.4647": "logout",
        "windows.4720": "user create", "windows.4722": "user enable", "windows.4723": "password update", "windows.4724": "password reset",
        "windows.4725": "user disable", "windows.4726": "user delete", "windows.4738": "user update", "windows.4740": "user lock",
        "windows.4767": "user unlock",
        "windows.4727": "group create", "windows.4731": "group create", "windows.4754": "group create",
        "windows.4728": "group add", "windows.4732": "group add", "windows.4756": "group add",
        "windows.4729": "group remove", "windows.4733": "group remove", "windows.4757": "group remove",
        "windows.4730": "group delete", "windows.4734": "group delete", "windows.4758": "group delete",
    },
    "Linux audit": {"audit.USER_START": "session login", "audit.USER_END": "session logout"},
    "Auth0": {
        "s": "login", "f": "login", "fp": "login", "fu": "login", "ss": "user create", "sdu": "user delete",
        "slo": "logout", "scp": "password update", "fcp": "password update",
    },
}  # fmt: skip
"""Products whose actions are codes: the words that each code stands for, the operation last."""
