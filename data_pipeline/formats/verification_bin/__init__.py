"""`.bin` verification sets: pairs of images, the same person or two."""
