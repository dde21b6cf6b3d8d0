"""The `tallystick` command: one module for verbs of a kind, no logic of its own."""
