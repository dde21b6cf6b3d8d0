"""Benchmarks: one command prints DESIGN section 13's table as measured on this machine, each row beside a limit of the machine."""
