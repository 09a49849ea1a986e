"""Profiles. Takes stored cells and plate maps; gives normalised well profiles.

Imports settings, storage, store.
"""
