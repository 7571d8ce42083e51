"""Bytes, collectives and seconds of a step, by arithmetic."""
