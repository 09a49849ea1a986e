"""Checks before a long run. Takes a plate's images, and what they may be held against; gives findings in words.

Imports settings, gpu, storage, images, store.
"""
