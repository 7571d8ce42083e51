"""A run measured: embeddings, protocols, tables."""
