"""Bytes to batches: where images lie, in which order they come, how they are decoded and augmented.

This package knows ranks as two integers and does not import `partial_fc`. Importing it costs no DALI: only
`data_pipeline.loader` does.
"""
