"""Scores. Takes profiles; gives Percent Replicating, Percent Matching, mean average precision and transfer.

Imports settings, storage, profiles.
"""
