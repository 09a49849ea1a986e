"""Segmentation. Takes corrected fields; gives label images of nuclei, cells and cytoplasm.

Imports settings, gpu.
"""
