"""The embeddings of a whole set: made part by part on any number of ranks, and compared."""
