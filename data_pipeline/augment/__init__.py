"""How often and how far images are changed, and the numbers drawn for it."""
