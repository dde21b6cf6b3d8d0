"""Tallystick: an audit logs delivery pipeline that can prove what it received and what it delivered."""

__version__ = "0.1.0"
