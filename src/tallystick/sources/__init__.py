"""The ways in: doors that take records, and the service that turns them into one commit."""
