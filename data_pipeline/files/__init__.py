"""Bytes on disk: read at any place, written whole, indexes kept, texts as arrays."""
