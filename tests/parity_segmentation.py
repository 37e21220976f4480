"""What semantic segmenters compute from given weights, here and in torch, everything in float64.

Only functions and classes that end in `_torch` import torch. There is no dropout.
"""

import jax
import jax.numpy as jnp
import numpy as np
from parity_networks import UNOPTIMISED, random_weights, summary

from jaxvision.nn import resnet, vgg
from jaxvision.ops.resize import bilinear
from jaxvision.pretrained import strict, torchvision_segmentation
from jaxvision.pretrained.torch_layout import module_sources
from jaxvision.tasks.deeplab import DeepLabHead, deeplab
from jaxvision.tasks.fcn import FCN, FCNHead, SkipFCN, fcn, skip_fcn
from jaxvision.types import Batch, SegmentationMap

CLASSES, SEED = 21, 5
CHANNELS = (8, 12, 16, 24, 24)
"""Channels of the stages of the VGG16 under the paper's FCN."""
HIDDEN = 40
SHAPE = (2, 75, 90, 3)
VOID = 255
STRIDES = {"fcn32s": 32, "fcn16s": 16, "fcn8s": 8, "fcn8s_at_once": 8}
DEPTHS = {"resnet50": (3, 4, 6, 3), "resnet14": (1, 1, 1, 1)}
NAMES = ("fcn_resnet50", "deeplabv3_resnet50", *STRIDES)
GOLDEN = ("fcn_resnet14", "deeplabv3_resnet14", "fcn8s")
"""Small ones, whose figures in torch are kept in tests/golden."""


def images_and_labels():
    """Noise, and squares of classes with void around them."""
    random = np.random.RandomState(SEED)
    images = random.standard_normal(SHAPE)
    label = random.randint(CLASSES, size=(SHAPE[0], 8, 9)).repeat(10, 1).repeat(10, 2)[:, : SHAPE[1], : SHAPE[2]]
    label[:, ::10], label[:, :, ::10] = VOID, VOID
    return images, label


def batch():
    images, label = images_and_labels()
    size, index = jnp.tile(jnp.int32([SHAPE[1:3]]), (SHAPE[0], 1)), jnp.arange(SHAPE[0], dtype=jnp.int32)
    target = SegmentationMap(jnp.asarray(np.where(label == VOID, 0, label), jnp.int32), jnp.asarray(label != VOID))
    return Batch(jnp.asarray(images), size, size, index, index >= 0, target)


def weights_of(shapes):
    """Random weights under torch's names; those of the upsampling stay as they are."""
    return random_weights({name: shape for name, shape in shapes.items() if "upscore" not in name}, SEED + 1)


def parts(name):
    """Task and name map."""
    options = {"mean": 0.0, "std": 1.0, "dtype": jnp.float64}
    if name in STRIDES:
        backbone = vgg.Backbone(vgg.VGG16, CHANNELS, ceil_pooling=True, dtype=jnp.float64)
        once = name.endswith("at_once")
        network = SkipFCN(backbone, CLASSES, STRIDES[name], HIDDEN, dropout=0.0, at_once=once)
        return skip_fcn(network, **options), lambda variables: module_sources(variables, _skip_module)
    kind, _, depth = name.partition("_")
    make, task, sources = {
        "fcn": (FCNHead, fcn, torchvision_segmentation.fcn_sources),
        "deeplabv3": (DeepLabHead, deeplab, torchvision_segmentation.deeplab_sources),
    }[kind]
    backbone = resnet.Backbone(resnet.Bottleneck, DEPTHS[depth], output_stride=8, dtype=jnp.float64)
    head, auxiliary = (each(CLASSES, dropout=0.0, dtype=jnp.float64) for each in (make, FCNHead))
    return task(FCN(backbone, head, auxiliary), **options), sources


def _skip_module(ours):
    """`backbone/stage1_conv2` is `conv1_2`."""
    layer = ours.removeprefix("backbone/stage")
    return layer if layer == ours else "conv" + layer.replace("_conv", "_")


def figures(name, shapes):
    """Ours: logits of every pixel, loss, gradients and statistics by torch's names."""
    task, sources_of = parts(name)
    given = batch()
    spec = jax.eval_shape(task.init, jax.random.key(0), given)
    sources = sources_of(spec)
    variables = strict.load(sources, weights_of(shapes), spec).variables

    def everything(params, rest):
        loss = lambda params: task.loss({**rest, "params": params}, given, jax.random.key(0))
        logits = jax.vmap(lambda x: bilinear(x, *SHAPE[1:3]))(task.predict({**rest, "params": params}, given).logits)
        return logits, jax.value_and_grad(loss, has_aux=True)(params)

    params, rest = variables["params"], {name: tree for name, tree in variables.items() if name != "params"}
    compiled = jax.jit(everything).lower(params, rest).compile(UNOPTIMISED)
    logits, ((loss, out), gradient) = jax.device_get(compiled(params, rest))

    def by_name(collection, tree):
        flat = {(collection, *(k.key for k in path)): x for path, x in jax.tree_util.tree_leaves_with_path(tree)}
        return {sources[path].name: sources[path].convert.back(np.asarray(x)) for path, x in flat.items()}

    return {
        "logits": logits,
        "losses": out.metrics,
        "loss": float(loss),
        "gradients": by_name("params", gradient),
        "statistics": by_name("batch_stats", out.collections.get("batch_stats", {})),
    }


def skip_fcn_torch(name):
    """The paper's network, layer by layer as the authors' net.py has it (shelhamer/fcn.berkeleyvision.org)."""
    import torch
    from torch import nn
    from torch.nn import functional

    stride, once = STRIDES[name], name.endswith("at_once")

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            before = 3
            for stage, (depth, channels) in enumerate(zip(vgg.VGG16, CHANNELS, strict=True), 1):
                for layer in range(1, depth + 1):
                    pad = 100 if (stage, layer) == (1, 1) else 1
                    self.add_module(f"conv{stage}_{layer}", nn.Conv2d(before, channels, 3, padding=pad))
                    before = channels
            self.conv6, self.conv7 = nn.Conv2d(before, HIDDEN, 7), nn.Conv2d(HIDDEN, HIDDEN, 1)
            self.scores = nn.Conv2d(HIDDEN, CLASSES, 1)
            if stride < 32:
                self.scores4 = nn.Conv2d(CHANNELS[3], CLASSES, 1)
                self.upscore2 = upscore(2)
            if stride < 16:
                self.scores3 = nn.Conv2d(CHANNELS[2], CLASSES, 1)
                self.upscore_pool4 = upscore(2)
            self.upscore = upscore(stride)

        def forward(self, images):
            x, pooled = images, []
            for stage, depth in enumerate(vgg.VGG16, 1):
                for layer in range(1, depth + 1):
                    x = functional.relu(getattr(self, f"conv{stage}_{layer}")(x))
                x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
                pooled.append(x)
            x = self.scores(functional.relu(self.conv7(functional.relu(self.conv6(x)))))
            if stride < 32:
                x = self.upscore2(x)
                x = x + cropped(self.scores4(pooled[3] * (0.01 if once else 1)), 5, x.shape)
            if stride < 16:
                x = self.upscore_pool4(x)
                x = x + cropped(self.scores3(pooled[2] * (0.0001 if once else 1)), 9, x.shape)
            return cropped(self.upscore(x), {32: 19, 16: 27, 8: 31}[stride], images.shape)

    def upscore(factor):
        """Caffe's Deconvolution, filled as in surgery.py."""
        layer = nn.ConvTranspose2d(CLASSES, CLASSES, 2 * factor, factor, bias=False)
        place = torch.arange(2 * factor, dtype=torch.float64)
        line = 1 - (place - (factor - 0.5)).abs() / factor
        kernel = torch.zeros(layer.weight.shape, dtype=torch.float64)
        kernel[range(CLASSES), range(CLASSES)] = line[:, None] * line[None, :]
        layer.weight = nn.Parameter(kernel, requires_grad=False)
        return layer

    def cropped(x, offset, shape):
        found = x[:, :, offset : offset + shape[2], offset : offset + shape[3]]
        assert found.shape[2:] == shape[2:]
        return found

    return Network().double()


def model_torch(name):
    """Theirs, without dropout, in float64."""
    if name in STRIDES:
        return skip_fcn_torch(name)
    import torch
    from torchvision.models import resnet as backbones
    from torchvision.models.segmentation import deeplabv3, fcn

    kind, _, depth = name.partition("_")
    make = {"fcn": fcn._fcn_resnet, "deeplabv3": deeplabv3._deeplabv3_resnet}[kind]
    dilated = {"replace_stride_with_dilation": [False, True, True]}
    model = make(backbones.ResNet(backbones.Bottleneck, list(DEPTHS[depth]), **dilated), CLASSES, True).double()
    for layer in model.modules():
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    return model


def figures_torch(name):
    """Theirs, and the shapes of their weights."""
    import torch
    from torch.nn import functional

    model, (images, label) = model_torch(name), images_and_labels()
    state = model.state_dict()
    shapes = {name: tuple(x.shape) for name, x in state.items() if not name.endswith("num_batches_tracked")}
    given = {name: torch.from_numpy(np.asarray(x)) for name, x in weights_of(shapes).items()}
    model.load_state_dict({**state, **given})
    pixels, label = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.from_numpy(label)
    outputs = lambda: model(pixels) if name not in STRIDES else {"out": model(pixels)}
    with torch.no_grad():
        model.eval()
        logits = outputs()["out"].numpy()
    model.train()
    reduction = "sum" if name in STRIDES else "mean"
    each = {
        key: functional.cross_entropy(x, label, ignore_index=VOID, reduction=reduction) for key, x in outputs().items()
    }
    if name in STRIDES:
        each["out"] = each["out"] / len(images)  # Caffe divides a sum by the number of images
    losses = {"pixel_loss": each["out"]}
    if "aux" in each:  # pytorch/vision, references/segmentation/train.py
        losses["auxiliary1_loss"] = 0.5 * each["aux"]
    loss = sum(losses.values())
    loss.backward()
    return shapes, {
        "logits": logits.transpose(0, 2, 3, 1),
        "losses": {key: x.item() for key, x in losses.items()},
        "loss": loss.item(),
        "gradients": {key: x.grad.numpy() for key, x in model.named_parameters() if x.requires_grad},
        "statistics": {key: x.numpy() for key, x in model.named_buffers() if "running" in key},
    }


def errors_of(ours, theirs):
    """The largest errors: of logits over their largest, of losses by value, of gradients and statistics by norm."""
    assert set(ours["losses"]) == set(theirs["losses"])
    errors = {"logits": np.abs(ours["logits"] - theirs["logits"]).max() / np.abs(theirs["logits"]).max()}
    errors |= {name: abs(ours["losses"][name] - x) / abs(x) for name, x in theirs["losses"].items()}
    for kind in ("gradients", "statistics"):
        assert set(ours[kind]) == set(theirs[kind])
        largest = max((np.linalg.norm(x) for x in theirs[kind].values()), default=0)
        errors[kind] = max(
            (
                np.linalg.norm(ours[kind][name] - x) / max(np.linalg.norm(x), 1e-6 * largest)
                for name, x in theirs[kind].items()
            ),
            default=0.0,
        )
    return errors


def golden_of(shapes, found):
    """What is kept of figures: small arrays."""
    return {
        "shapes": np.array([" ".join([name, *map(str, shape)]) for name, shape in sorted(shapes.items())]),
        "logits": summary({"logits": found["logits"]}),
        "losses": np.array([value for _, value in sorted(found["losses"].items())]),
        "gradients": summary(found["gradients"]),
        "statistics": summary(found["statistics"]).reshape(-1, 2),
    }


def assert_same(found, expected):
    """Our golden figures are those of torch."""
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-9)
    for kind in ("logits", "gradients", "statistics"):
        norms = np.maximum(expected[kind][:, :1], 1e-6 * expected[kind][:, :1].max(initial=1e-300))
        np.testing.assert_allclose(found[kind] / norms, expected[kind] / norms, rtol=0, atol=1e-7)
