"""Parts that several test suites share: real servers as processes, event generators, oracles."""
