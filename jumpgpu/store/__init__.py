"""The store. Takes finished tables and label images; gives one zarr group per plate, and reads it back.

Imports settings, storage, images.
"""
