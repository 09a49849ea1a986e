"""Drawn fields. Takes a seed; gives images with known cells, illumination and effects.

Imports settings.
"""
