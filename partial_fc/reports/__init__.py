"""A step's record, the meter that makes it, the sinks that show it."""
