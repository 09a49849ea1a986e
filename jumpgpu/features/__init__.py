"""Features. Takes corrected fields and label images; gives one row of measurements per cell.

Imports settings, gpu, images, segmentation, networks.
"""
