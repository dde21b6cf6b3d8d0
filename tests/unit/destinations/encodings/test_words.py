"""What an action's words say is done."""

from __future__ import annotations

import pytest

from tallystick.destinations.encodings.kinds import kind_of
from tallystick.destinations.encodings.words import words_of


@pytest.mark.parametrize(
    ("action", "operation"),
    [
        ("user.login", "login"),
        ("user.login.failed", "login"),
        ("UserLoggedIn", "login"),
        ("Sign-in_activity", "login"),
        ("login.attack_warning", ""),
        ("iam.CreateAccessKey", "create"),
        ("iam.ListAttachedGroupPolicies", "list"),
        ("Microsoft.Compute/disks/write", "update"),
        ("Microsoft.KeyVault/vaults/secrets/getSecret/action", "read"),
        ("app_uninstalled", "uninstall"),
        ("audit.DEL_USER", "delete"),
        ("kms.ScheduleKeyDeletion", "delete"),
        ("repo.add_member", "add"),
        ("clusterrolebindings.create", "create"),
        ("x", ""),
        ("9", ""),
    ],
)
def test_the_operation(action: str, operation: str) -> None:
    """The last telling part decides, whatever the manner of writing."""
    assert words_of(action).operation == operation


@pytest.mark.parametrize(
    ("target_type", "kind"),
    [
        ("user", "user"),
        ("AWS::IAM::User", "user"),
        ("iam.googleapis.com/ServiceAccount", "user"),
        ("ClusterRole", "privilege"),
        ("gcs_bucket", "bucket"),
        ("Service Account", "user"),
        ("invoice", ""),
        ("", ""),
        ("::", ""),
    ],
)
def test_the_kind_of_a_target(target_type: str, kind: str) -> None:
    """The last word of the type decides."""
    assert kind_of(target_type) == kind
