"""Explanations: which pixels a score of a network comes from, and how far such a map can be believed.

What is explained is a `Score`: `images b h w c -> scores b`, pixels 0-255 as floats, made of a task by `scores` or
`detections`. Methods are pure functions of a score and images, one map `b h w` an image (`y x` of a layer for the methods
that look at one). Images are independent of each other, as they are for a network outside training.
"""
