"""Rules over the stream of events. Not in this version: the floor is kept so that nothing above it has to move."""
