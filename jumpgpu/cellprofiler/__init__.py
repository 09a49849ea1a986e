"""CellProfiler's files. Takes a pipeline file; gives settings of ours and a finding for every difference.

Imports settings.
"""
