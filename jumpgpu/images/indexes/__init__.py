"""What says which of a plate's files is which: a microscope's index, a table, the files' names.

Takes a folder and what lies in it; gives a `Plate`. Imports settings, storage, `images.plate`, `images.channels`.
"""
