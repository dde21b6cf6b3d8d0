"""The composition root: processes, their parts, and the rules of a start."""
