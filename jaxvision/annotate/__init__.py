"""Automatic annotation: models annotate folders of images, people review, and the next model is trained on the result."""
