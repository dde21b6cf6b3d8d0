"""The transform `enrich`: what tables, GeoIP databases, a parser of user agents and threat lists know of what an event says."""

from __future__ import annotations

from tallystick.transforms.enrich.settings import EnrichSettings as EnrichSettings
from tallystick.transforms.enrich.transform import Enrich as Enrich
