"""`streams.training` and `streams.evaluation`, read by threads of this process, under the name that experiments have."""

from jaxvision.data.streams import evaluation, training

__all__ = ["evaluation", "training"]
