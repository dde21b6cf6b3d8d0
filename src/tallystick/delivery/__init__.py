"""From sealed events to destinations: cut, send, settle, account."""
