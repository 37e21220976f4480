"""What DETR computes from given weights, here and in transformers. Only functions that end in `_torch` import torch.

transformers' own `auxiliary_loss=True` feeds every layer of the decoder the normalised output of the one before, other than
the authors' code and their weights: there the norm is for the heads alone. So its layers are run without it here, and
its heads, its matcher and all its losses on what they give.
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from parity_networks import UNOPTIMISED, random_weights, summary, under_torch_names

from jaxvision.nn import resnet
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.ops.pixels import IMAGENET_MEAN, IMAGENET_STD
from jaxvision.pretrained import strict
from jaxvision.pretrained.detr import detr_sources
from jaxvision.tasks import detr
from jaxvision.tasks.detr import DETR
from jaxvision.types import Batch, Objects

CLASSES = 6
SEED = 7
CANVAS = (130, 150)
SIZES = ((130, 150), (104, 88))
BOXES = (
    [[10, 20, 110, 90], [12, 22, 108, 95], [50, 30, 150, 130], [0, 100, 60, 130]],
    [[30, 40, 80, 100], [5, 5, 88, 60]],
)
LABELS = ([1, 0, 4, 2], [3, 5])
TERMS = ("loss_ce", "loss_bbox", "loss_giou")


class Form(NamedTuple):
    """A size of DETR."""

    backbone: str
    queries: int
    width: int
    hidden: int
    layers: int


FULL = Form("resnet50", 100, 256, 2048, 6)
SMALL = Form("resnet18", 12, 32, 48, 2)


def weights_of(shapes):
    """Random weights by the names of transformers' files, under which queries differ and scores and boxes spread."""
    weights = random_weights(shapes, SEED)
    for name, factor in (("query_position_embeddings", 16), ("class_labels_classifier", 3), ("bbox_predictor", 2)):
        for full in weights:
            if name in full and weights[full].ndim > 1:
                weights[full] = factor * weights[full]
    return weights


def images():
    """Pixels, 0-255, of blurred noise in the content, 0 outside it."""
    noise = np.random.RandomState(SEED + 1).uniform(0, 255, (2, 13, 15, 3))
    pixels = np.repeat(np.repeat(noise, 10, 1), 10, 2)
    for image, (height, width) in zip(pixels, SIZES, strict=True):
        image[height:], image[:, width:] = 0, 0
    return pixels


def normalised():
    """The images as the networks see them: 0 outside the content."""
    pixels = (images() - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return pixels * mask()[..., None]


def mask():
    """1 inside the content: `b h w`."""
    inside = np.zeros((2, *CANVAS))
    for each, (height, width) in zip(inside, SIZES, strict=True):
        each[:height, :width] = 1
    return inside


def batch(rows=6):
    """The images with their objects, padded."""
    boxes, labels, valid = np.zeros((2, rows, 4)), np.zeros((2, rows), np.int32), np.zeros((2, rows), bool)
    for i in range(2):
        n = len(LABELS[i])
        boxes[i, :n], labels[i, :n], valid[i, :n] = BOXES[i], LABELS[i], True
    target = Objects(*map(jnp.asarray, (boxes, labels, valid, np.zeros_like(valid))))
    size, index = jnp.asarray(SIZES, jnp.int32), jnp.arange(2, dtype=jnp.int32)
    return Batch(jnp.asarray(images()), size, size, index, index >= 0, target)


def network_of(form):
    backbone = getattr(resnet, form.backbone)(norm=FrozenBatchNorm, dtype=jnp.float64).backbone
    sizes = {"queries": form.queries, "width": form.width, "hidden": form.hidden}
    layers = {"encoder_layers": form.layers, "decoder_layers": form.layers, "dropout": 0.0}
    return DETR(backbone, CLASSES, **sizes, **layers, dtype=jnp.float64)


def by_layer(outputs, given):
    """The three terms of every layer, as transformers means them: `3 l`."""
    each = jax.vmap(detr.loss_terms)
    terms = [each(logits, boxes, given.target, given.size) for logits, boxes in zip(*outputs, strict=True)]
    names = ("class_loss", "box_loss", "giou_loss")
    return jnp.asarray([[t.sums[name].sum() / t.counts[name].sum() for t in terms] for name in names])


def figures(shapes, form):
    """Ours, in float64: outputs and terms of every layer, loss, gradients by transformers' names, detections."""
    network, given = network_of(form), batch()
    task = detr.detr(network, dtype=jnp.float64)
    spec = jax.eval_shape(task.init, jax.random.key(0), given)
    sources = detr_sources(spec)
    variables = strict.load(sources, weights_of(shapes), spec).variables
    rest = {"batch_stats": variables["batch_stats"]}

    def everything(params):
        full = {"params": params, **rest}
        outputs = network.apply(full, jnp.asarray(normalised()), given.size, train=False)
        loss = lambda p: task.loss({"params": p, **rest}, given, jax.random.key(0))
        return (
            outputs,
            by_layer(outputs, given),
            jax.value_and_grad(loss, has_aux=True)(params),
            task.predict(full, given),
        )

    compiled = jax.jit(everything).lower(variables["params"]).compile(UNOPTIMISED)
    outputs, terms, ((loss, _), gradient), found = jax.device_get(compiled(variables["params"]))
    gradient = {**gradient, "queries": gradient["queries"].T}  # a table, no dense layer
    return {
        "logits": outputs.logits,
        "boxes": outputs.boxes,
        "terms": terms,
        "loss": loss,
        "gradients": under_torch_names(sources, "params", gradient),
        "detections": np.concatenate([found.boxes, found.labels[..., None], found.scores[..., None]], -1),
    }


def model_torch(form, folder):
    """transformers' DETR in float64, with the weights read from a file of the published form; and its shapes by name."""
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import DetrConfig, DetrForObjectDetection

    config = DetrConfig(
        backbone=form.backbone,
        num_queries=form.queries,
        d_model=form.width,
        encoder_ffn_dim=form.hidden,
        decoder_ffn_dim=form.hidden,
        encoder_layers=form.layers,
        decoder_layers=form.layers,
        num_labels=CLASSES,
        auxiliary_loss=False,
    )
    DetrForObjectDetection(config).save_pretrained(folder)
    file = Path(folder) / "model.safetensors"
    shapes = {name: array.shape for name, array in load_file(file).items()}
    save_file({name: np.ascontiguousarray(array) for name, array in weights_of(shapes).items()}, file, {"format": "pt"})
    model, told = DetrForObjectDetection.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return model.eval().requires_grad_(True), shapes


def figures_torch(form):
    """transformers' shapes by name, and the same figures."""
    import copy

    import torch
    from transformers import DetrImageProcessor
    from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

    torch.set_default_dtype(torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        model, shapes = model_torch(form, folder)
    kept = []
    for layer in model.model.decoder.layers:
        layer.register_forward_hook(lambda module, given, output: kept.append(output))
    pixels = torch.from_numpy(normalised().transpose(0, 3, 1, 2).copy())
    outputs = model(pixels, pixel_mask=torch.from_numpy(mask()))
    normed = model.model.decoder.layernorm(torch.stack(kept))
    logits, boxes = model.class_labels_classifier(normed), model.bbox_predictor(normed).sigmoid()
    assert torch.equal(logits[-1], outputs.logits)
    config = copy.deepcopy(model.config)
    config.auxiliary_loss = True
    loss, terms, _ = ForObjectDetectionLoss(
        logits[-1], labels_torch(), pixels.device, boxes[-1], config, outputs_class=logits, outputs_coord=boxes
    )
    loss.backward()
    torch.set_default_dtype(torch.float32)
    layers = [*(f"_{i}" for i in range(form.layers - 1)), ""]
    found = DetrImageProcessor().post_process_object_detection(outputs, threshold=0.0, target_sizes=list(SIZES))
    named = {file_name(name): p.grad.numpy() for name, p in model.named_parameters()}
    return shapes, {
        "logits": logits.detach().numpy(),
        "boxes": boxes.detach().numpy(),
        "terms": np.array([[terms[name + layer].item() for layer in layers] for name in TERMS]),
        "loss": loss.item(),
        "gradients": named,
        "detections": np.stack([ordered(each, size) for each, size in zip(found, SIZES, strict=True)]),
    }


def file_name(name):
    """What a parameter is called in transformers' files: they are the names of its first releases."""
    for new, old in (("backbone.model", "backbone.conv_encoder.model"), ("o_proj", "out_proj"), (".mlp.fc", ".fc")):
        name = name.replace(new, old)
    return name


def labels_torch():
    """The objects as transformers wants them: centre, width and height as shares of the content."""
    import torch

    labels = []
    for boxes, classes, (height, width) in zip(BOXES, LABELS, SIZES, strict=True):
        x0, y0, x1, y1 = np.array(boxes, float).T
        shares = np.stack([(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height], -1)
        labels.append({"class_labels": torch.tensor(classes), "boxes": torch.from_numpy(shares)})
    return labels


def ordered(found, size):
    """transformers' detections of an image as ours are: the best first, boxes within the content."""
    boxes, labels, scores = (found[name].detach().numpy() for name in ("boxes", "labels", "scores"))
    boxes = np.clip(boxes, 0, [size[1], size[0]] * 2)
    rows = np.concatenate([boxes, labels[:, None], scores[:, None]], -1)
    return rows[np.argsort(-scores, kind="stable")]


def golden_of(shapes, figures):
    """What is kept of figures: small arrays."""
    return {
        **{name: figures[name] for name in ("logits", "boxes", "terms", "loss", "detections")},
        "shapes": np.array([" ".join([name, *map(str, shape)]) for name, shape in sorted(shapes.items())]),
        "gradients": summary(figures["gradients"]),
    }


def assert_same(found, expected):
    """Our golden figures are those of transformers."""
    for name, tolerance in (("logits", 1e-9), ("boxes", 1e-9), ("terms", 1e-9), ("loss", 1e-9), ("detections", 1e-7)):
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name)
    norms = np.maximum(expected["gradients"][:, :1], 1e-6 * expected["gradients"][:, :1].max())
    np.testing.assert_allclose(found["gradients"] / norms, expected["gradients"] / norms, rtol=0, atol=1e-7)
