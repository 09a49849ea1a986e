"""Measures of whole images, as CellProfiler's Image table has them: pixels and label images in, numbers by column out.

May import settings, gpu, segmentation and features.
"""
