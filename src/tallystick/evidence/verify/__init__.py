"""Offline verification: `verify_data` recomputes a data directory and gives a `Report`."""

from tallystick.evidence.verify.data import Evidence, verify_data
from tallystick.evidence.verify.lines import ChunkSource
from tallystick.evidence.verify.report import TIERS, Problem, Report, Step

__all__ = ["TIERS", "ChunkSource", "Evidence", "Problem", "Report", "Step", "verify_data"]
