"""What is wrong with a set, what the set is, and what is left out of it."""
