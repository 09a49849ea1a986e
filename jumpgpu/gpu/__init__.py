"""Devices. Takes kernel sources and tensors; gives `open_device`, which launches on a GPU or on this machine's cores.

Imports nothing of the package.
"""
