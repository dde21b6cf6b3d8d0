"""Bytes in, records out; no sockets, files or clock."""
