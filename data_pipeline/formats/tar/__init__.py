"""Tar shards as WebDataset writes them, read at random."""
