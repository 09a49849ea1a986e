"""What commands share: parsers, options, progress, exit status.

Takes the words of a command line; gives options. Imports settings, gpu (what its failures mean), storage.
"""
