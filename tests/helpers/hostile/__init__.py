"""Hostile files, made by code: name -> bytes (or a function that writes a folder). Nothing here is kept on disk."""
