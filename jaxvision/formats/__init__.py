"""Annotation files in and out: what datasets of objects look like on disk, and the form that every format is read into."""

from jaxvision.formats.opening import open

__all__ = ["open"]
