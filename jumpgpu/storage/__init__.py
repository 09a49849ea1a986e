"""Files. Takes folders and URLs; gives whole files: atomic writes, local folders, buckets, prefetching.

Imports settings.
"""
