"""The durable write-ahead log: frame, segment, writer, recovery, dedupe, and the followers' way of reading it."""
