"""Outputs. Takes stored plates, profiles and scores; gives a plate's page and files for other tools.

Imports settings, storage, store, profiles, scores.
"""
