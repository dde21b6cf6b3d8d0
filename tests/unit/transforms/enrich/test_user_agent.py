"""User agents."""

from __future__ import annotations

import time

from tallystick.transforms.enrich.user_agent import UserAgents


def test_browsers_tools_and_nothing() -> None:
    """A phone's browser, a tool of AWS, and text that says nothing."""
    agents = UserAgents()
    phone = agents.find(
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1"
    )
    assert phone is not None
    assert phone.pop("dataset")["name"] == "uap-core"
    assert phone == {
        "browser": "Mobile Safari",
        "browser_version": "17.0",
        "os": "iOS",
        "os_version": "17.0",
        "device": "iPhone",
        "device_brand": "Apple",
        "device_model": "iPhone",
    }
    tool = agents.find("aws-cli/2.13.0 Python/3.11.4 Linux/5.10")
    assert tool is not None
    assert (tool["browser"], tool["browser_version"]) == ("aws-cli", "2.13.0")
    assert agents.find("") is agents.find("cloudtrail.amazonaws.com") is None


def test_a_hostile_text_costs_no_more_than_a_long_one() -> None:
    """Texts that make backtracking engines slow; a tenth of a second of the processor is a thousand times what is needed."""
    agents = UserAgents()
    begun = time.process_time()
    for text in ("Mozilla/5.0 (" + " ;" * 30_000, "a" * 65_000, "(((((" * 10_000, "Windows NT " * 6_000):
        agents.find(text)
    assert time.process_time() - begun < 0.5
