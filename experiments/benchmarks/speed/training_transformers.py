"""Side of transformers' DETR in the benchmarks `training` and `training_gpu`.

transformers' own `auxiliary_loss=True` feeds every layer of the decoder the normalised output of the one before, other than
the authors' code and weights, where the norm is for the heads alone. So its layers run without it here, and its heads, its
matcher and all its losses on what they give: the same work.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import DetrConfig, DetrForObjectDetection
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from experiments.benchmarks.speed import scenes
from experiments.benchmarks.speed.contest import Work
from experiments.benchmarks.speed.torch_step import adamw, load, normalised, on_device, work


def step(
    network: str,
    batch: int,
    size: Sequence[int],
    dtype: str = "float32",
    compiled: bool = False,
    backbone: str = "resnet50",
    layers: int = 6,
) -> Work:
    """Training steps with dropout; what is compared is the loss without it. Compiled are backbone and encoder."""
    if network != "detr":
        raise ValueError(f"network={network!r}: allowed is 'detr'")
    model: Any = load(DetrForObjectDetection(configured(backbone, layers)), file_name)
    if compiled:
        model.model.backbone = torch.compile(model.model.backbone, dynamic=False)
        model.model.encoder = torch.compile(model.model.encoder, dynamic=False)
    loss = loss_of(model, scenes.scene(batch, size))

    def without_dropout() -> list[torch.Tensor]:
        model.eval()
        value = loss()
        model.train()
        return [value]

    return work(model, loss, adamw(model.parameters(), 1e-4), dtype, 0.1, without_dropout)


def configured(backbone: str = "resnet50", layers: int = 6) -> DetrConfig:
    """DETR with the dropout of the authors' code: of what branches add, of attention weights and of hidden units."""
    dropout = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), 0.1)
    return DetrConfig(
        **{"backbone": backbone, "num_labels": scenes.CLASSES, "auxiliary_loss": False, "use_timm_backbone": True},
        **{"use_pretrained_backbone": False, "encoder_layers": layers, "decoder_layers": layers},
        **dropout,
    )


def file_name(name: str) -> str:
    """What a parameter is called in transformers' files: they are the names of its first releases."""
    for new, old in (("backbone.model", "backbone.conv_encoder.model"), ("o_proj", "out_proj"), (".mlp.fc", ".fc")):
        name = name.replace(new, old)
    return name


def loss_of(model: Any, given: scenes.Scene):
    """A function that gives the loss of all layers of the decoder."""
    layers, kept = model.model.decoder.layers, []
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: kept.append(output))
    config = copy.deepcopy(model.config)
    config.auxiliary_loss = True
    images, labels = on_device(given.images), objects(given)
    mask = torch.ones(given.images.shape[:3], dtype=torch.long, device=images.device)

    def loss() -> torch.Tensor:
        kept.clear()
        model.model(normalised(images), pixel_mask=mask)
        outputs = [each[0] if isinstance(each, tuple) else each for each in kept]
        normed = model.model.decoder.layernorm(torch.stack(outputs))
        logits, boxes = model.class_labels_classifier(normed), model.bbox_predictor(normed).sigmoid()
        last = logits[-1], labels, images.device, boxes[-1], config
        return ForObjectDetectionLoss(*last, outputs_class=logits, outputs_coord=boxes)[0]

    return loss


def objects(given: scenes.Scene) -> list[dict[str, torch.Tensor]]:
    """The objects as transformers wants them: centre, width and height as fractions of the image."""
    height, width = given.images.shape[1:3]
    x0, y0, x1, y1 = np.moveaxis(given.boxes / np.array([width, height, width, height], np.float32), -1, 0)
    fractions = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], -1)
    return [
        {"class_labels": on_device(labels.astype(np.int64)), "boxes": on_device(boxes)}
        for labels, boxes in zip(given.labels, fractions, strict=True)
    ]
