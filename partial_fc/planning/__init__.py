"""Bytes, collectives and seconds of a step, from real steps on fake tensors."""
