"""Convolution, the layer of convolution, normalisation and activation, and max pooling.

Images are `b h w c`, kernels `h w i o`; padding is explicit, as PyTorch counts it. "SAME" padding is not offered: with a
stride it pads unevenly, and differently from every PyTorch network.
"""

from collections.abc import Callable
from functools import partial, reduce
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxvision.machine import eigen
from jaxvision.nn.norm import BatchNorm, Norm
from jaxvision.nn.precision import at_least_float32

Padding = int | tuple[tuple[int, int], tuple[int, int]]
"""Pixels on every side, or ((top, bottom), (left, right))."""
Pads = tuple[tuple[int, int], tuple[int, int]]
Activation = Callable[[Array], Array]
"""Applied to every value alone."""

LARGE_BYTES = 2**23
"""Images and their convolution that are larger together have the gradient of the kernel computed part by part."""
PART_BYTES = 2**21
"""What a part is to hold of both."""
MOST_PARTS = 32
"""Parts of a convolution at most, since each is compiled."""
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
"""Normal with variance 2 / (output channels * kernel area), for a ReLU behind it (arXiv 1502.01852)."""


def convolve(
    images: Float[Array, "b h w i"],
    kernel: Float[Array, "kh kw j o"],
    *,
    stride: int = 1,
    padding: Padding = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "b y x o"]:
    """Cross-correlate `images` with `kernel`, whose input channels are those of one group: `j = i / groups`.

    A 1x1 kernel becomes one matrix product of all pixels that the stride keeps: the same numbers, computed about twice as
    fast by XLA on CPU, forward and backward. So does a depthwise one of at most 5x5 become a sum of shifted images, on
    CPU alone: 3 to 50 times as fast, the more channels the more, as XLA's gradient computes all pairs of channels there.
    """
    pads = _both_axes(padding)
    depthwise = groups == images.shape[-1] == kernel.shape[3]
    if depthwise and dilation == 1 and kernel.shape[0] * kernel.shape[1] <= 25:
        return _depthwise(images, kernel, stride, pads)
    if kernel.shape[:2] == (1, 1) and groups == 1 and pads == ((0, 0), (0, 0)):
        kept = images[:, ::stride, ::stride, :]
        pixels = kept.reshape(-1, kept.shape[-1])
        return _product(pixels, kernel[0, 0]).reshape(*kept.shape[:-1], kernel.shape[3])
    if groups == 1:
        return _in_parts(images, kernel, stride, pads, dilation)
    return _by_xla(images, kernel, stride, pads, dilation, groups)


def _by_xla(images: Array, kernel: Array, stride: int, pads: Pads, dilation: int, groups: int = 1) -> Array:
    return lax.conv_general_dilated(
        images,
        kernel,
        window_strides=(stride, stride),
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


@jax.custom_jvp
def _product(pixels: Array, kernel: Array) -> Array:
    return pixels @ kernel


@partial(_product.defjvp, symbolic_zeros=True)
def _(operands: tuple[Array, Array], tangents: tuple[Array | SymbolicZero, ...]) -> tuple[Array, Array]:
    """The tangent of the kernel meets the pixels as transposed already: its gradient is a plain product then.

    XLA on CPU multiplies a transposed left operand at 0.5 to 1.1 times the speed of a plain product, slowest where more
    channels come in than go out.
    """
    (pixels, kernel), (of_pixels, of_kernel) = operands, tangents
    terms = []
    if not isinstance(of_pixels, SymbolicZero):
        terms.append(of_pixels @ kernel)
    if not isinstance(of_kernel, SymbolicZero):
        transposed = lax.optimization_barrier(pixels.T) if jax.default_backend() == "cpu" else pixels.T
        terms.append(lax.dot_general(transposed, of_kernel, (((0,), (0,)), ((), ()))))
    result = _product(pixels, kernel)
    return result, reduce(jnp.add, terms) if terms else jnp.zeros_like(result)


@partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _in_parts(images: Array, kernel: Array, stride: int, pads: Pads, dilation: int) -> Array:
    return _by_xla(images, kernel, stride, pads, dilation)


@partial(_in_parts.defjvp, symbolic_zeros=True)
def _(
    stride: int,
    pads: Pads,
    dilation: int,
    operands: tuple[Array, Array],
    tangents: tuple[Array | SymbolicZero, ...],
) -> tuple[Array, Array]:
    """The tangent of the kernel goes through the images in parts: its gradient is the sum of those of the parts.

    XLA on CPU computes that of a large convolution by YNNPACK at 40 to 70 GFLOP/s where it does the parts at 100 to 220.
    Eigen is as fast with the whole.
    """
    (images, kernel), (of_images, of_kernel) = operands, tangents
    result, terms = _in_parts(images, kernel, stride, pads, dilation), []
    if not isinstance(of_images, SymbolicZero):
        terms.append(_with_kernel_transposed(of_images, kernel, stride, pads, dilation))
    if not isinstance(of_kernel, SymbolicZero):
        convolution = partial(_with_images_transposed, stride=stride, pads=pads, dilation=dilation)
        count = _parts(images, result)
        padding_alone = max(pads[0]) > (kernel.shape[0] - 1) * dilation  # a band might be nothing else
        if groups := _groups(len(images), count):
            terms.append(_by_groups(images, of_kernel, groups, convolution))
        elif count == 1 or padding_alone:
            terms.append(convolution(images, of_kernel))
        else:
            terms.append(_by_bands(images, of_kernel, min(count, result.shape[1]), stride, pads, dilation))
    return result, reduce(jnp.add, terms) if terms else jnp.zeros_like(result)


def _with_kernel_transposed(images: Array, kernel: Array, stride: int, pads: Pads, dilation: int) -> Array:
    """The convolution, with axes of which the gradient of the images is one of NHWC and HWIO, on CPU.

    XLA brings other axes into this order by itself there, but not within a branch or a loop, where convolutions of others
    take 6 to 90 times as long (jax#12868).
    """
    if jax.default_backend() != "cpu":
        return _by_xla(images, kernel, stride, pads, dilation)
    return lax.conv_general_dilated(
        images,
        kernel.transpose(0, 1, 3, 2),
        window_strides=(stride, stride),
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWOI", "NHWC"),
    )


def _with_images_transposed(images: Array, kernel: Array, stride: int, pads: Pads, dilation: int) -> Array:
    """The convolution, with axes of which the gradient of the kernel is one of NHWC and HWIO, on CPU."""
    if jax.default_backend() != "cpu":
        return _by_xla(images, kernel, stride, pads, dilation)
    convolved = lax.conv_general_dilated(
        images.transpose(3, 1, 2, 0),
        kernel.transpose(2, 0, 1, 3),
        window_strides=(stride, stride),
        padding=pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )
    return convolved.transpose(2, 0, 1, 3)


def _parts(images: Array, result: Array) -> int:
    """Parts that the images are computed in: one, but on a CPU alone where they are large, and not Eigen's.

    Several devices would exchange the gradient of each part; in bfloat16 the sum of the parts would be rounded at each.
    """
    whole, width = (images.size + result.size) * images.dtype.itemsize, images.dtype.itemsize
    if jax.default_backend() != "cpu" or jax.device_count() > 1 or whole <= LARGE_BYTES or width < 4:
        return 1
    if eigen.convolves():
        return 1
    return min(-(-whole // PART_BYTES), MOST_PARTS)


def _groups(images: int, parts: int) -> int | None:
    """The number of groups of equally many images, two or more in each; None where there is no such."""
    fit = (n for n in range(parts, min(images // 2, MOST_PARTS) + 1) if images % n == 0)
    return next(fit, None) if parts > 1 else None


def _by_groups(images: Array, kernel: Array, groups: int, convolution: Callable[[Array, Array], Array]) -> Array:
    """The convolution, a group of images at a time; XLA can't put the groups together again."""
    grouped = images.reshape(-1, groups, *images.shape[1:])
    each = (lax.optimization_barrier(grouped[:, group]) for group in range(groups))
    results = [lax.optimization_barrier(convolution(group, kernel)) for group in each]
    return jnp.stack(results, 1).reshape(len(images), *results[0].shape[1:])


def _by_bands(images: Array, kernel: Array, bands: int, stride: int, pads: Pads, dilation: int) -> Array:
    """The convolution, a band of rows of the result at a time; XLA can't put the bands together again."""
    height, reach = images.shape[1], (kernel.shape[0] - 1) * dilation + 1
    rows = (height + sum(pads[0]) - reach) // stride + 1
    cuts, parts = [rows * n // bands for n in range(bands + 1)], []
    for first, last in pairwise(cuts):
        top, bottom = first * stride - pads[0][0], (last - 1) * stride + reach - pads[0][0]
        band = lax.optimization_barrier(images[:, max(top, 0) : min(bottom, height)])
        around = ((max(-top, 0), max(bottom - height, 0)), pads[1])
        convolved = _with_images_transposed(band, kernel, stride, around, dilation)
        parts.append(lax.optimization_barrier(convolved))
    return jnp.concatenate(parts, 1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _depthwise(images: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    by_xla = partial(_by_xla, stride=stride, pads=pads, dilation=1, groups=images.shape[-1])
    by_shifts = partial(_by_shifts, stride=stride, pads=pads)
    return lax.platform_dependent(images, kernel, cpu=by_shifts, default=by_xla)


def _depthwise_forward(images: Array, kernel: Array, stride: int, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise(images, kernel, stride, pads), (images, kernel)


def _depthwise_backward(stride: int, pads: Pads, inputs: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    by_xla = partial(_by_xla, stride=stride, pads=pads, dilation=1, groups=inputs[0].shape[-1])
    by_shifts = partial(_by_shifts, stride=stride, pads=pads)

    def of(convolution: Callable[[Array, Array], Array]) -> Callable[..., tuple[Array, Array]]:
        return lambda images, kernel, g: jax.vjp(convolution, images, kernel)[1](g)

    return lax.platform_dependent(*inputs, gradient, cpu=of(by_shifts), default=of(by_xla))


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _by_shifts(images: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """A depthwise convolution as the sum over the kernel's places of the image, shifted, times the weights there."""
    images = jnp.pad(images, ((0, 0), *pads, (0, 0)))
    last = [(size - side) // stride * stride for size, side in zip(images.shape[1:3], kernel.shape[:2], strict=True)]
    shifted = (
        images[:, i : i + last[0] + 1 : stride, j : j + last[1] + 1 : stride] * kernel[i, j].reshape(1, 1, 1, -1)
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    )
    return reduce(jnp.add, shifted)


class Conv(nn.Module):
    """A learned convolution: parameter `kernel` (`kh kw i/groups o`), and `bias` (`o`) if `use_bias`.

    Parameters are float32 (float64 if `dtype` is); the computation and its result have type `dtype`.
    """

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    padding: Padding = 0
    dilation: int = 1
    groups: int = 1
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = kaiming_normal

    @nn.compact
    def __call__(self, images: Float[Array, "b h w i"]) -> Float[Array, "b y x o"]:
        """Convolve.

        Raises:
            ValueError: if `groups` divides not both the input channels and `features`.
        """
        channels, wide = images.shape[-1], at_least_float32(self.dtype)
        if channels % self.groups or self.features % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {channels} channels in and {self.features} out")
        size = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        kernel = self.param("kernel", self.kernel_init, (*size, channels // self.groups, self.features), wide)
        convolved = convolve(
            images.astype(self.dtype),
            kernel.astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        if not self.use_bias:
            return convolved
        bias = self.param("bias", nn.initializers.zeros, (self.features,), wide)
        return convolved + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class ConvNormAct(nn.Module):
    """A convolution, a normalisation and an activation: submodules `conv` and `norm`, or as `flat` names them."""

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    padding: Padding | None = None
    """None: half of the kernel, dilated, so that one of odd sides keeps the size of the images, but for the stride."""
    dilation: int = 1
    groups: int = 1
    use_bias: bool = False
    """Whether the convolution has a bias."""
    norm: Norm | None = BatchNorm
    """None: no normalisation."""
    activation: Activation | None = nn.relu
    """None: the layer ends with its normalisation."""
    dtype: DTypeLike = jnp.float32
    kernel_init: Initializer = kaiming_normal
    scale_init: Initializer = nn.initializers.ones
    """What the scale of the normalisation starts from."""

    @nn.compact
    def __call__(self, images: Float[Array, "b h w i"], *, train: bool) -> Float[Array, "b y x o"]:
        """Run the layer; `train` selects the statistics of the batch in place of the running ones."""
        return self.flat(images, "conv", "norm", train=train)

    @nn.nowrap
    def flat(self, images: Float[Array, "b h w i"], conv: str, norm: str, *, train: bool) -> Float[Array, "b y x o"]:
        """Run the layer without a level of its own: its submodules, with these names, are those of the module that calls.

        So `ConvNormAct(64, 7, 2).flat(images, "stem_conv", "stem_norm", train=train)` stands in a compact module.
        """
        size = (self.kernel_size,) * 2 if isinstance(self.kernel_size, int) else self.kernel_size
        rows, columns = (side // 2 * self.dilation for side in size)
        x = Conv(
            self.features,
            self.kernel_size,
            self.stride,
            ((rows, rows), (columns, columns)) if self.padding is None else self.padding,
            self.dilation,
            self.groups,
            self.use_bias,
            self.dtype,
            self.kernel_init,
            name=conv,
        )(images)
        if self.norm is not None:
            normalise = self.norm(dtype=self.dtype, scale_init=self.scale_init, name=norm)
            x = normalise(x, use_running_average=not train)
        return x if self.activation is None else self.activation(x)


def max_pool(
    images: Float[Array, "b h w c"], window: int, *, stride: int | None = None, padding: Padding = 0
) -> Float[Array, "b y x c"]:
    """The largest value of every `window` x `window` square; `stride` is the window's size unless given.

    The border counts as minus infinity. Of equal values the first in reading order has the gradient, and NaN wins, as
    in PyTorch. Computed as elementwise maxima of shifted images, first along x, then along y: on CPU the gradient of
    `lax.reduce_window` takes over ten times as long.

    Raises:
        ValueError: if the padded image is smaller than the window.
    """
    stride = window if stride is None else stride
    vertical, horizontal = _both_axes(padding)
    along_x = _running_maximum(images, 2, window, stride, horizontal)
    return _running_maximum(along_x, 1, window, stride, vertical)


def max_pool_rounding_up(images: Float[Array, "b h w c"], window: int) -> Float[Array, "b y x c"]:
    """`max_pool` with stride 2 whose last window may reach one pixel over the border: PyTorch's `ceil_mode`."""
    over = [(size - window) % 2 for size in images.shape[1:3]]
    return max_pool(images, window, stride=2, padding=((0, over[0]), (0, over[1])))


def _running_maximum(x: Array, axis: int, window: int, stride: int, padding: tuple[int, int]) -> Array:
    """The largest of `window` neighbours along `axis`, at every `stride`-th position."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (*padding, 0)
    x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), edges)
    if x.shape[axis] < window:
        raise ValueError(f"max_pool: a window of {window} does not fit into {x.shape[axis]} pixels")
    last = (x.shape[axis] - window) // stride * stride
    shifted = [lax.slice_in_dim(x, i, i + last + 1, stride, axis) for i in range(window)]
    return reduce(_first_maximum, shifted)


def _first_maximum(first: Array, second: Array) -> Array:
    """Elementwise maximum; of equal values the first, so that only one of them has a gradient."""
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def _both_axes(padding: Padding) -> tuple[tuple[int, int], tuple[int, int]]:
    return ((padding, padding), (padding, padding)) if isinstance(padding, int) else padding
