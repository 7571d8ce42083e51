"""The loader beside others."""
