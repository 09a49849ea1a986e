"""Fields and crops in a network's form, and the networks: a batch's pixels in; crops, representations and masks out.

Imports settings, gpu.
"""
