"""Pictures for people: curves, matrices, sheets of images.

A drawing is a pure function that returns a `matplotlib.figure.Figure`; nothing here knows pyplot or changes a setting of
matplotlib. `figure.save` writes it as PNG.
"""
