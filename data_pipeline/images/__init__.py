"""One encoded image: its header, what is wrong with it, made into JPEG."""
