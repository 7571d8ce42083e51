"""A run watched from a terminal: what is known of it, and how it is shown."""
