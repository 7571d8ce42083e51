"""Image files: a folder per identity, or a list of path and label."""
