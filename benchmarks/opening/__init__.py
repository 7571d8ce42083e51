"""How fast data sets open."""
