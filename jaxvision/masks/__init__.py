"""Masks on the host, in pixels of image files: run lengths, polygons, and what a prediction is as such.

NumPy, one object at a time. Masks of targets on the device are in `ops.masks`.
"""
