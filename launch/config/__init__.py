"""The typed configuration, one file a section."""
