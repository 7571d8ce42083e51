"""The losses compared on Omniglot."""
