"""Verification: `verify_data` recomputes a data directory, `verify_served` what a server serves; each gives a `Report`."""

from tallystick.evidence.verify.data import Evidence, verify_data
from tallystick.evidence.verify.lines import ChunkSource
from tallystick.evidence.verify.report import TIERS, Problem, Report, Step
from tallystick.evidence.verify.served import ServedEvidence, verify_served

__all__ = ["TIERS", "ChunkSource", "Evidence", "Problem", "Report", "ServedEvidence", "Step", "verify_data", "verify_served"]
