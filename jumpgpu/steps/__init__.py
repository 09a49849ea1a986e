"""A lab's own pipeline, step by step: corrected images and functions in; object sets, label images and tables out.

May import settings, gpu, segmentation, features and image_features.
"""
