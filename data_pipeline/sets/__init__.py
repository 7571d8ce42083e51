"""Sets made of sets, and what their labels are called."""
