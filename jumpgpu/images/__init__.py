"""Images. Takes a plate's folder or URL; gives checked, illumination-corrected fields and label images.

Imports settings, gpu, storage.
"""
