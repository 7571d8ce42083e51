"""A trained network by itself: loaded from any of its files, exported, and asked for embeddings."""
