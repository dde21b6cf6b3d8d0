"""Test doubles for users and developers of plug-ins."""
