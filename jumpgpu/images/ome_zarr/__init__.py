"""OME-Zarr plates. Takes a folder or bucket; gives a `Plate` whose files are planes of arrays.

Metadata is judged here before zarr sees it. Imports settings, storage, `images`.
"""
