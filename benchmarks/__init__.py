"""Measurements that the documents quote: each is a module to run, and says how long it takes."""
