"""The backbone of TensorFlow's SSD-MobileNetV2 for other detectors: the names of its arrays are those of the whole."""

import re

import jax
import jax.numpy as jnp
from experiment_files import ROOT, build, chosen_in
from flax import traverse_util

from jaxvision.pretrained import tensorflow_ssd
from jaxvision.tasks.ssd import ssd300_mobilenet_v2


def test_the_backbone_of_faster_rcnn_has_the_names_of_ssds_and_the_rest_is_left_aside():
    whole = jax.eval_shape(
        lambda: ssd300_mobilenet_v2(90).init(jax.random.key(0), jnp.zeros((1, 300, 300, 3)), train=False)
    )
    chosen = build(*chosen_in(ROOT / "experiments/trees_faster_rcnn.py"), {"weights": "coco", "size": "96"}, None)
    other = jax.eval_shape(chosen.task.init, jax.random.key(0), chosen.train.spec)
    every = {source.name: path for path, source in tensorflow_ssd.sources(whole).items()}
    found = tensorflow_ssd.backbone_sources(other)

    flat = traverse_util.flatten_dict(other)
    assert set(found) == {path for path in flat if path[1:3] == ("features", "backbone")}
    shapes = traverse_util.flatten_dict(whole)
    for path, source in found.items():
        assert shapes[every[source.name]].shape == flat[path].shape
        assert every[source.name][1:] == path[1:]  # frozen normalisation is no parameter
    rest = set(every) - {source.name for source in found.values()}
    unmatched = [name for name in rest if not any(re.fullmatch(p, name) for p in tensorflow_ssd.BEHIND_BACKBONE)]
    assert rest
    assert not unmatched
    taken = [s.name for s in found.values() if any(re.fullmatch(p, s.name) for p in tensorflow_ssd.BEHIND_BACKBONE)]
    assert not taken
