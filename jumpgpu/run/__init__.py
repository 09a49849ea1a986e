"""A run. Takes a plate and settings; gives a stored plate, batch by batch, well by well, over threads or Dask workers.

Imports every stage from images to store.
"""
