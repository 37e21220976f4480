"""jaxvision: computer vision research in JAX. Every vision task is three pure functions, and one step trains them all."""

__version__ = "0.1.0"
