"""Recurrent networks that read an image as a sequence, of its rows or of its patches."""

from typing import cast

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.precision import at_least_float32
from jaxvision.nn.resnet import uniform_fan_in

Cell = type[nn.OptimizedLSTMCell] | type[nn.LSTMCell] | type[nn.GRUCell]


class RNNClassifier(nn.Module):
    """Layers of LSTM or GRU cells over the sequence; the last output of the last layer is classified.

    Flax's LSTM has one bias where PyTorch's has two, and its GRU four where PyTorch's has six: only their sums matter,
    and in the GRU's candidate both are kept. So the functions are the same and the numbers of parameters are not.
    """

    classes: int
    cell: Cell = nn.OptimizedLSTMCell
    hidden: int = 128
    """Units of every layer."""
    layers: int = 1
    patch: int | None = None
    """Side of the squares that the sequence consists of, in reading order. None: of rows."""
    dtype: DTypeLike = jnp.float32
    """Type of the computation, float32 in place of half precision: the memory of a cell is a long sum."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is); `train` changes nothing.

        Raises:
            ValueError: if the images are not whole patches.
        """
        del train
        wide = at_least_float32(self.dtype)
        x = (rows(images) if self.patch is None else patches(images, self.patch)).astype(wide)
        for layer in range(1, self.layers + 1):
            cell = self.cell(self.hidden, dtype=wide, param_dtype=wide, name=f"layer{layer}")
            x = cast(Array, nn.RNN(cell)(x))
        head = nn.Dense(self.classes, dtype=wide, param_dtype=wide, kernel_init=uniform_fan_in, name="head")
        return head(x[:, -1])


def rows(images: Float[Array, "b h w c"]) -> Float[Array, "b h d"]:
    """Every row as one vector of `d = w * c` values."""
    return images.reshape(*images.shape[:2], -1)


def patches(images: Float[Array, "b h w c"], side: int) -> Float[Array, "b n d"]:
    """Every `side` x `side` square as one vector of `d = side * side * c` values, in reading order.

    Raises:
        ValueError: if `side` does not divide the height and the width.
    """
    b, h, w, c = images.shape
    if h % side or w % side:
        raise ValueError(f"images of {(h, w)} pixels are not whole patches of {side}")
    squares = images.reshape(b, h // side, side, w // side, side, c).transpose(0, 1, 3, 2, 4, 5)
    return squares.reshape(b, -1, side * side * c)
