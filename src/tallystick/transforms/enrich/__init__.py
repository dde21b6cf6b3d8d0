"""The transform `enrich`: what tables, GeoIP databases, a parser of user agents and threat lists know of what an event says."""
