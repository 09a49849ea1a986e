"""Readable NumPy twins of what no tool computes."""
