"""What DETR with masks computes from given weights, here and in transformers. Only functions ending in `_torch` import torch.

As in `parity_detr`, transformers' layers are run without its `auxiliary_loss`, and its losses on what their norm gives.
"""

import copy
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_detr
from parity_detr import BOXES, CANVAS, CLASSES, FULL, SIZES, SMALL, Form, file_name, mask, normalised, weights_of
from parity_networks import UNOPTIMISED, summary, under_torch_names

from jaxvision.pretrained import strict
from jaxvision.pretrained.detr import segmentation_sources
from jaxvision.tasks.detr_segmentation import detr_segmentation, segmenting

__all__ = ["FULL", "SMALL", "Form"]
TERMS = {"class_loss": "loss_ce", "box_loss": "loss_bbox", "giou_loss": "loss_giou", "mask_loss": "loss_mask"}
TERMS["dice_loss"] = "loss_dice"


def masks_of(image):
    """Ellipses in the boxes of one image, bool `n h w` of the canvas."""
    y, x = (np.arange(side) + 0.5 for side in CANVAS)
    boxes = np.array(BOXES[image], float)
    x0, y0, x1, y1 = boxes.T[:, :, None]
    across, down = ((x - x0) / (x1 - x0) * 2 - 1) ** 2, ((y - y0) / (y1 - y0) * 2 - 1) ** 2
    return down[:, :, None] + across[:, None] <= 1


def batch():
    """`parity_detr`'s images with their objects and masks."""
    given = parity_detr.batch()
    masks = np.zeros((*given.target.valid.shape, *CANVAS), bool)
    for image in range(2):
        masks[image, : len(BOXES[image])] = masks_of(image)
    return given.replace(target=given.target.replace(masks=jnp.asarray(masks)))


def figures(shapes, form):
    """Ours, in float64: outputs of the last layer, masks of all queries, terms, loss, gradients by transformers' names."""
    network, given = segmenting(parity_detr.network_of(form)), batch()
    task = detr_segmentation(network, dtype=jnp.float64)
    spec = jax.eval_shape(task.init, jax.random.key(0), given)
    sources = segmentation_sources(spec)
    variables = strict.load(sources, weights_of(shapes), spec).variables
    rest = {"batch_stats": variables["batch_stats"]}

    def everything(params):
        outputs = network.apply({"params": params, **rest}, jnp.asarray(normalised()), given.size, train=False)
        loss = lambda p: task.loss({"params": p, **rest}, given, jax.random.key(0))
        return outputs, jax.value_and_grad(loss, has_aux=True)(params)

    compiled = jax.jit(everything).lower(variables["params"]).compile(UNOPTIMISED)
    (outputs, masks), ((loss, out), gradient) = jax.device_get(compiled(variables["params"]))
    queries = gradient["detr"]["queries"].T  # a table, no dense layer
    gradient = {**gradient, "detr": {**gradient["detr"], "queries": queries}}
    return {
        "logits": outputs.logits[-1],
        "boxes": outputs.boxes[-1],
        "masks": masks,
        "terms": np.array([out.metrics[name] for name in TERMS]),
        "loss": loss,
        "gradients": under_torch_names(sources, "params", gradient),
    }


def model_torch(form, folder):
    """transformers' model in float64, with the weights read from a file of the published form; and its shapes by name."""
    import torch
    from safetensors.numpy import load_file, save_file
    from transformers import DetrConfig, DetrForSegmentation

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
    DetrForSegmentation(config).save_pretrained(folder)
    file = Path(folder) / "model.safetensors"
    shapes = {name: array.shape for name, array in load_file(file).items()}
    save_file({name: np.ascontiguousarray(array) for name, array in weights_of(shapes).items()}, file, {"format": "pt"})
    model, told = DetrForSegmentation.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True
    )
    assert not any(told[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    return model.eval().requires_grad_(True), shapes


def figures_torch(form):
    """transformers' shapes by name, and the same figures."""
    import torch
    from transformers.loss.loss_for_object_detection import ForSegmentationLoss

    torch.set_default_dtype(torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        model, shapes = model_torch(form, folder)
    inner, kept = model.detr, []
    for layer in inner.model.decoder.layers:
        layer.register_forward_hook(lambda module, given, output: kept.append(output))
    pixels = torch.from_numpy(normalised().transpose(0, 3, 1, 2).copy())
    outputs = model(pixels, pixel_mask=torch.from_numpy(mask()))
    normed = inner.model.decoder.layernorm(torch.stack(kept))
    logits, boxes = inner.class_labels_classifier(normed), inner.bbox_predictor(normed).sigmoid()
    assert torch.equal(logits[-1], outputs.logits)
    config = copy.deepcopy(model.config)
    config.auxiliary_loss = True
    given = outputs.pred_boxes, outputs.pred_masks, config, logits, boxes
    loss, terms, _ = ForSegmentationLoss(outputs.logits, labels_torch(), pixels.device, *given)
    loss.backward()
    torch.set_default_dtype(torch.float32)
    return shapes, {
        "logits": outputs.logits.detach().numpy(),
        "boxes": outputs.pred_boxes.detach().numpy(),
        "masks": outputs.pred_masks.detach().numpy(),
        "terms": np.array([terms[name].item() for name in TERMS.values()]),
        "loss": loss.item(),
        "gradients": {saved_name(name): p.grad.numpy() for name, p in model.named_parameters()},
    }


def saved_name(name):
    """What a parameter is called in transformers' files, see `parity_detr.file_name`."""
    stages = {f"fpn_stages.{n}.{new}": f"{old}{n + 1 + more}" for n in range(3) for new, old, more in STAGES}
    layers = {"conv1.conv": "lay1", "conv1.norm": "gn1", "conv2.conv": "lay2", "conv2.norm": "gn2"}
    for new, old in {**stages, **layers, "output_conv": "out_lay", "q_proj": "q_linear", "k_proj": "k_linear"}.items():
        if name.startswith(("mask_head", "bbox_attention")):
            name = name.replace(new, old)
    return name if name.startswith(("mask_head", "bbox_attention")) else file_name(name)


STAGES = (("fpn_adapter", "adapter", 0), ("refine.conv", "lay", 2), ("refine.norm", "gn", 2))


def labels_torch():
    """The objects as transformers wants them, with masks of the size of the content."""
    import torch

    labels = parity_detr.labels_torch()
    for image, (height, width) in enumerate(SIZES):
        labels[image]["masks"] = torch.from_numpy(masks_of(image)[:, :height, :width].copy())
    return labels


def golden_of(shapes, figures):
    """What is kept of figures: small arrays."""
    return {
        **{name: figures[name] for name in ("logits", "boxes", "terms", "loss")},
        "masks": figures["masks"][:, :, ::4, ::4],
        "shapes": np.array([" ".join([name, *map(str, shape)]) for name, shape in sorted(shapes.items())]),
        "gradients": summary(figures["gradients"]),
    }


def assert_same(found, expected):
    """Our golden figures are those of transformers."""
    for name in ("logits", "boxes", "masks", "terms", "loss"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-9, atol=1e-9, err_msg=name)
    norms = np.maximum(expected["gradients"][:, :1], 1e-6 * expected["gradients"][:, :1].max())
    np.testing.assert_allclose(found["gradients"] / norms, expected["gradients"] / norms, rtol=0, atol=1e-7)
