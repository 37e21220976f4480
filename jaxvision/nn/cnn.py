"""Small convolutional networks: a good first one, that of the classic CIFAR-10 tutorial, and one for folders of photos."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.nn.conv import Conv, ConvNormAct, max_pool
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32


class SmallCNN(nn.Module):
    """3x3 convolutions, each with normalisation and ReLU; pooling halves the image after every stage; then one head.

    Made for 28x28 and 32x32 images. Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    classes: int
    channels: Sequence[int | Sequence[int]] = (16, 32, 64)
    """Channels of every stage, or of every convolution of it."""
    depth: int = 2
    """Convolutions of every stage."""
    dropout: float = 0.4
    """Fraction of the head's inputs that are dropped while training."""
    dtype: DTypeLike = jnp.float32
    norm: Norm = BatchNorm

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is)."""
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}; it must be at least 0 and less than 1")
        x = images
        for stage, widths in enumerate(self.widths, 1):
            for layer, channels in enumerate(widths, 1):
                conv = ConvNormAct(channels, 3, norm=self.norm, dtype=self.dtype)
                x = conv.flat(x, f"stage{stage}_conv{layer}", f"stage{stage}_norm{layer}", train=train)
            x = max_pool(x, 2)
        wide = at_least_float32(self.dtype)
        x = x.astype(wide).reshape(x.shape[0], -1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, name="head")(x)

    @property
    def widths(self) -> tuple[tuple[int, ...], ...]:
        """Channels of every convolution, stage by stage.

        Raises:
            ValueError: for a stage with channels of more or fewer convolutions than `depth`.
        """
        stages = tuple((each,) * self.depth if isinstance(each, int) else tuple(each) for each in self.channels)
        if any(len(stage) != self.depth for stage in stages):
            raise ValueError(
                f"channels is {self.channels}; of a stage allowed is one number, or depth={self.depth} of them"
            )
        return stages


class TutorialCNN(nn.Module):
    """Two 5x5 convolutions with pooling, three dense layers: the network of PyTorch's CIFAR-10 tutorial.

    A LeNet (LeCun et al. 1998) with ReLU and max pooling: 62,006 parameters for 10 classes and 32x32 RGB images.
    """

    classes: int = 10
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is); `train` changes nothing."""
        del train
        wide = at_least_float32(self.dtype)
        x = max_pool(nn.relu(Conv(6, 5, dtype=self.dtype, name="conv1")(images)), 2)
        x = max_pool(nn.relu(Conv(16, 5, dtype=self.dtype, name="conv2")(x)), 2)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(120, dtype=self.dtype, param_dtype=wide, name="dense1")(x))
        x = nn.relu(nn.Dense(84, dtype=self.dtype, param_dtype=wide, name="dense2")(x))
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, name="dense3")(x)


class FolderCNN(nn.Module):
    """Convolutions, each with ReLU and 2x2 max pooling; a wide dense layer; then the head.

    As it stands, made for photos of 150x150 pixels, of which 17x17 features of 128 channels remain: 37,976,130 parameters
    for RGB and two classes. With `channels=(32, 64), kernel=5, padding=2, dropout=0.4` it is the network of TensorFlow's
    MNIST tutorial. Needs an rng named "dropout" while training, unless `dropout` is 0.
    """

    classes: int
    channels: Sequence[int] = (32, 64, 128)
    """Channels of every convolution."""
    kernel: int = 3
    """Side of the convolutions' kernels."""
    padding: int = 0
    """Pixels of zeros around the input of every convolution."""
    hidden: int = 1024
    """Units of the dense layer."""
    dropout: float = 0.5
    """Fraction of the dense layer's units that are dropped while training."""
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b k"]:
        """Logits of normalised images, in float32 (float64 if `dtype` is)."""
        wide, x = at_least_float32(self.dtype), images
        for number, channels in enumerate(self.channels, 1):
            conv = Conv(channels, self.kernel, padding=self.padding, dtype=self.dtype, name=f"conv{number}")
            x = max_pool(nn.relu(conv(x)), 2)
        x = x.reshape(x.shape[0], -1)
        x = nn.relu(nn.Dense(self.hidden, dtype=self.dtype, param_dtype=wide, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(self.classes, dtype=wide, param_dtype=wide, name="head")(x)
