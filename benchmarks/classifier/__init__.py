"""A step of the classifier, timed beside others."""
