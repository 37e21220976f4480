"""Names of DETR's published weights: the golden file lists transformers' own, the authors' are spelled out."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import parity_detr
from parity_networks import shapes_of

from jaxvision.nn import resnet
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import coco
from jaxvision.pretrained.detr import CLASSES, coco_sources, detr_sources, from_facebook
from jaxvision.pretrained.strict import load
from jaxvision.tasks.detr import DETR

GOLDEN = Path(__file__).parent / "golden" / "detr.npz"
FACEBOOK = {
    "backbone.0.body.layer1.0.bn1.running_mean": "model.backbone.conv_encoder.model.layer1.0.bn1.running_mean",
    "input_proj.weight": "model.input_projection.weight",
    "query_embed.weight": "model.query_position_embeddings.weight",
    "transformer.encoder.layers.1.self_attn.out_proj.bias": "model.encoder.layers.1.self_attn.out_proj.bias",
    "transformer.encoder.layers.0.linear1.weight": "model.encoder.layers.0.fc1.weight",
    "transformer.encoder.layers.0.norm1.weight": "model.encoder.layers.0.self_attn_layer_norm.weight",
    "transformer.encoder.layers.0.norm2.weight": "model.encoder.layers.0.final_layer_norm.weight",
    "transformer.decoder.layers.0.multihead_attn.out_proj.bias": "model.decoder.layers.0.encoder_attn.out_proj.bias",
    "transformer.decoder.layers.1.linear2.bias": "model.decoder.layers.1.fc2.bias",
    "transformer.decoder.layers.0.norm1.bias": "model.decoder.layers.0.self_attn_layer_norm.bias",
    "transformer.decoder.layers.0.norm2.bias": "model.decoder.layers.0.encoder_attn_layer_norm.bias",
    "transformer.decoder.layers.0.norm3.bias": "model.decoder.layers.0.final_layer_norm.bias",
    "transformer.decoder.norm.weight": "model.decoder.layernorm.weight",
    "class_embed.bias": "class_labels_classifier.bias",
    "bbox_embed.layers.2.weight": "bbox_predictor.layers.2.weight",
}
"""Names of the authors' file, and of transformers' (its conversion script lists both)."""


def spec_of(network):
    given = (jnp.zeros((1, 32, 32, 3)), jnp.int32([[32, 32]]))
    return jax.eval_shape(lambda: network.init(jax.random.key(0), *given, train=False))


def small(classes):
    backbone = resnet.Backbone(resnet.BasicBlock, (1,), width=4, norm=FrozenBatchNorm)
    return DETR(backbone, classes, queries=3, width=8, heads=2, hidden=8, encoder_layers=1, decoder_layers=1)


def blank(sources, spec):
    """An array for every name, in the other library's order of axes; of COCO's ids those of the head."""
    flat = {source.name: leaf.shape for source, leaf in zip(*pairs(sources, spec), strict=True)}
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
    arrays = {name: np.zeros([shape[axis] for axis in order[len(shape)]], np.float32) for name, shape in flat.items()}
    arrays["model.query_position_embeddings.weight"] = np.zeros((3, 8), np.float32)
    arrays["class_labels_classifier.weight"] = np.arange(92 * 8, dtype=np.float32).reshape(92, 8)
    arrays["class_labels_classifier.bias"] = np.arange(92, dtype=np.float32)
    return arrays


def pairs(sources, spec):
    leaves = []
    for path in sources:
        leaf = spec
        for part in path:
            leaf = leaf[part]
        leaves.append(leaf)
    return list(sources.values()), leaves


def test_every_array_of_transformers_file_is_used_once(float64):
    with np.load(GOLDEN) as golden:
        shapes = shapes_of(golden)
    spec = spec_of(parity_detr.network_of(parity_detr.SMALL))
    loaded = load(detr_sources(spec), {name: np.zeros(shape) for name, shape in shapes.items()}, spec)
    assert loaded.report.numbers == sum(leaf.size for leaf in jax.tree.leaves(spec))


def test_the_authors_names_become_transformers_and_what_they_packed_is_unpacked():
    with np.load(GOLDEN) as golden:
        known = shapes_of(golden)
    arrays = {name: np.full(1, number) for number, name in enumerate(FACEBOOK)}
    packed = "transformer.decoder.layers.0.multihead_attn.in_proj_weight"
    renamed = from_facebook({**arrays, packed: np.arange(12).reshape(6, 2)})
    assert set(renamed) <= set(known)
    assert {renamed[theirs].item(): theirs for theirs in FACEBOOK.values()} == dict(enumerate(FACEBOOK.values()))
    rows = {part: renamed[f"model.decoder.layers.0.encoder_attn.{part}_proj.weight"][:, 0].tolist() for part in "qkv"}
    assert rows == {"q": [0, 2], "k": [4, 6], "v": [8, 10]}


def test_of_the_91_classes_cocos_80_are_kept():
    spec = spec_of(small(80))
    sources = coco_sources(spec)
    head = load(sources, blank(sources, spec), spec).variables["params"]["classes"]
    assert head["kernel"].shape == (8, 81)
    assert [CLASSES[int(number)] for number in head["bias"][:-1]] == list(coco.CLASSES)
    assert head["bias"][-1] == 91  # no object
    assert np.asarray(head["kernel"])[0].tolist() == [8 * number for number in np.asarray(head["bias"])]
