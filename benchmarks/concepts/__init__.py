"""The pictures of the pages on concepts: every number in them is made by the code that they explain."""
