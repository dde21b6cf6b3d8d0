"""Rules over the stream of events: `rule` (what a file says), `engine` with one file per kind (what fires), `follower` (exactly once)."""
