"""How the retention policy in force follows the configuration: longer at once, shorter after a wait that is announced."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystick.config.units import Duration
from tallystick.evidence.policy import Policy, next_policy

DAY = 86_400.0
PERIODS = st.sampled_from(["1d", "2d", "3d", "40d"])
CLASSES = st.dictionaries(st.sampled_from(["standard", "x"]), PERIODS, min_size=1)
POLICIES = st.builds(Policy, CLASSES, st.dictionaries(st.sampled_from(["h1", "h2"]), CLASSES, max_size=2))


def test_longer_is_at_once_and_shorter_waits() -> None:
    """The wait is told in the policy itself, goes on while the configuration says the same, and ends when it is over."""
    policy = next_policy(None, Policy({"standard": "40d"}), 0.0, 7 * DAY)
    assert next_policy(policy, Policy({"standard": "80d", "x": "1d"}), 0.0, 7 * DAY).classes == {"standard": "80d", "x": "1d"}
    waits = next_policy(policy, Policy({"standard": "3d"}), 0.0, 7 * DAY)
    assert waits.classes == {"standard": "40d"}
    assert [(one.tenant, one.retention_class, one.period, one.at) for one in waits.coming] == [
        ("", "standard", "3d", "1970-01-08T00:00:00.000Z")
    ]
    assert next_policy(waits, Policy({"standard": "3d"}), 5 * DAY, 7 * DAY) == waits
    assert next_policy(waits, Policy({"standard": "40d"}), 5 * DAY, 7 * DAY) == policy
    assert next_policy(waits, Policy({"standard": "3d"}), 7 * DAY, 7 * DAY) == Policy({"standard": "3d"})


def test_another_period_waits_anew() -> None:
    """A harmless change cannot start a wait that a harmful one then uses."""
    waits = next_policy(Policy({"standard": "40d"}), Policy({"standard": "39d"}), 0.0, 7 * DAY)
    again = next_policy(waits, Policy({"standard": "1d"}), 6 * DAY, 7 * DAY)
    assert again.coming[0].at == "1970-01-14T00:00:00.000Z"


def test_removing_a_class_is_no_way_around() -> None:
    """What is not named any more stays in force, so that naming it again with less is a shortening."""
    gone = next_policy(Policy({"standard": "40d", "x": "30d"}), Policy({"standard": "40d"}), 0.0, DAY)
    assert gone.period("h1", "x") == "30d"
    assert next_policy(gone, Policy({"standard": "40d", "x": "1d"}), 0.0, DAY).period("h1", "x") == "30d"


def test_a_tenants_own_period_is_shortened_by_its_removal() -> None:
    """It waits like any other, and then the tenant is as all are."""
    own = next_policy(Policy({"standard": "4d"}), Policy({"standard": "4d"}, {"h1": {"standard": "9d"}}), 0.0, DAY)
    waits = next_policy(own, Policy({"standard": "4d"}), 0.0, DAY)
    assert waits.period("h1", "standard") == "9d"
    assert waits.coming[0].tenant == "h1"
    assert next_policy(waits, Policy({"standard": "4d"}), DAY, DAY) == Policy({"standard": "4d"})


@given(POLICIES, st.lists(POLICIES, max_size=4), st.integers(0, 3))
def test_no_change_shortens_anything_within_the_wait(first: Policy, changes: list[Policy], days: int) -> None:
    """Whatever the configuration says one after the other, no tenant's period is shorter before a week has passed."""
    policy = next_policy(None, first, 0.0, 7 * DAY)
    for number, wanted in enumerate(changes):
        after = next_policy(policy, wanted, number * days * DAY / 2, 7 * DAY)
        for handle in ("h1", "h2", "h3"):
            for name in ("standard", "x"):
                before, now = policy.period(handle, name), after.period(handle, name)
                assert before is None or (now is not None and Duration(now).seconds >= Duration(before).seconds)
        policy = after
