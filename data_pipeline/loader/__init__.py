"""Batches from DALI; an image that cannot be used is replaced by rule."""
