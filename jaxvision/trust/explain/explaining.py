"""Explaining one image: what is to be explained of it, by which method, and what the map is worth."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxvision.errors import ConfigError, nearest
from jaxvision.ops.raw_scores import Candidates
from jaxvision.trust.explain import cam, detections, gradients, judging, layers, masking, rollout, scores
from jaxvision.trust.explain.detections import Chosen, Side
from jaxvision.trust.explain.judging import Map
from jaxvision.trust.explain.scores import Score
from jaxvision.types import Batch, ClassScores, Detections, PixelScores, Prediction, Task, Variables


class Asked(NamedTuple):
    """What is asked of an image."""

    detection: int = 1
    """The number of a detection, from 1 on, the best first."""
    label: str | None = None
    """A class; None: a classifier's best, or that of most pixels."""
    box: tuple[float, float, float, float] | None = None
    """An object that a detector missed, `x0 y0 x1 y1` in pixels of the canvas; its class is `label`."""
    side: Side | None = None
    """A side of a detection's box in place of its score."""
    layer: str | None = None
    masks: int = 500
    """Masks of RISE and D-RISE."""
    seed: int = 0
    """Seed of the masks, the noise, and the randomised parameters."""


BEST = Asked()
"""What is explained unless something is asked for: the best class, or the best detection."""


class Subject(NamedTuple):
    """What is explained of an image."""

    raw: Score
    """The raw score, which gradients reach."""
    shown: Score
    """What a user of the network sees of it: for methods that hide parts of the image, and to judge a map."""
    name: str
    label: int
    chosen: Chosen | None = None
    """The candidate of a detector."""


def find(task: Task, variables: Variables, batch: Batch, classes: tuple[str, ...], asked: Asked) -> Subject:
    """The subject that is asked for, in the first image of a batch.

    Raises:
      ConfigError: for a class, a detection or a region that is not there.
    """
    prediction = jax.jit(task.predict)(variables, batch)
    if isinstance(prediction, Detections):
        chosen = _candidate(task, variables, batch, classes, asked, prediction)
        return of_detector(task, variables, batch, classes, asked, chosen)
    if asked.box is not None or asked.side is not None:
        raise ConfigError("a box or a side of one is explained of a detector; this task predicts none")
    if not isinstance(prediction, ClassScores | PixelScores):
        raise ConfigError(f"explained are classes, objects and regions; this task predicts {type(prediction).__name__}")
    label = scores.class_number(asked.label, classes, prediction)
    return of_label(task, variables, batch, classes, label, prediction)


def of_label(
    task: Task, variables: Variables, batch: Batch, classes: tuple[str, ...], label: int, prediction: Prediction
) -> Subject:
    """A class of the image, or of the pixels that are predicted to be of it."""
    if isinstance(prediction, ClassScores):
        raw = scores.of_class(task, variables, batch, label)
        shown = scores.probability(task, variables, batch, label)
        return Subject(raw, shown, f"{classes[label]}", label)
    region = scores.predicted_region(prediction, label)
    raw = scores.of_region(task, variables, batch, label, region)
    return Subject(raw, raw, f"the pixels of {classes[label]}", label)


def of_detector(
    task: Task, variables: Variables, batch: Batch, classes: tuple[str, ...], asked: Asked, chosen: Chosen
) -> Subject:
    """A candidate of a detector, its score or a side of its box."""
    name = f"{classes[chosen.label]} at {', '.join(f'{side:.0f}' for side in chosen.box)}"
    raw = detections.of_candidate(task, variables, batch, chosen)
    if asked.side is not None:
        name, raw = f"the {asked.side} side of {name}", detections.of_side(task, variables, batch, chosen, asked.side)
    similar = detections.most_similar(task, variables, batch, chosen, len(classes))
    return Subject(raw, similar, name, chosen.label, chosen)


def _candidate(
    task: Task, variables: Variables, batch: Batch, classes: tuple[str, ...], asked: Asked, prediction: Detections
) -> Chosen:
    if asked.box is None:
        return detections.detected(prediction, asked.detection)
    if asked.label is None:
        raise ConfigError("a missed object needs its class beside its box: --class=NAME")
    label = scores.class_number(asked.label, classes, ClassScores(jnp.zeros((1, len(classes)))))
    return nearest_candidate(task, variables, batch, np.asarray(asked.box), label)


def nearest_candidate(task: Task, variables: Variables, batch: Batch, box: np.ndarray, label: int) -> Chosen:
    """The best candidate for an object, which keeps the object's box: that is what D-RISE compares with."""
    return detections.best_candidate(_candidates(task, variables, batch), box, label)


@partial(jax.jit, static_argnames="task")
def _candidates(task: Task, variables: Variables, batch: Batch) -> Candidates:
    return detections.candidates(task, variables, batch)


Method = Callable[[Subject, Float[Array, "1 h w c"], Asked, Float[Array, "c"]], Map]
"""`(subject, image, asked, baseline) -> map` of the canvas; the baseline is the colour of what is hidden."""


def _by_pixels(method: Callable[..., Array]) -> Method:
    return lambda subject, image, asked, baseline: np.abs(method(subject, image, asked, baseline)[0]).sum(-1)


def _by_layer(combine: cam.Combine) -> Method:
    def method(subject: Subject, image: Array, asked: Asked, baseline: Array) -> Map:
        del baseline
        found = layers.outputs(subject.raw, image)
        path = asked.layer or layers.last(found, several=subject.chosen is not None)
        maps = layers.with_gradients(subject.raw, image, path)
        return np.asarray(cam.on_canvas(combine, *maps, (image.shape[1], image.shape[2]))[0])

    return method


def _occlusion(subject: Subject, image: Array, asked: Asked, baseline: Array) -> Map:
    window = max(min(image.shape[1:3]) // 8, 1)
    return masking.occlusion(subject.shown, image[0], window, max(window // 2, 1), baseline)


def _rise(subject: Subject, image: Array, asked: Asked, baseline: Array) -> Map:
    random, grid = np.random.default_rng(asked.seed), 8 if subject.chosen is None else 16
    visible = masking.random_masks(random, asked.masks, (image.shape[1], image.shape[2]), min(grid, image.shape[1]))
    return masking.rise(subject.shown, image[0], visible, baseline)


def _rollout(subject: Subject, image: Array, asked: Asked, baseline: Array) -> Map:
    attention = rollout.attention_weights(subject.raw, image)
    patch = round((image.shape[1] * image.shape[2] / (attention[0].shape[-1] - 1)) ** 0.5)
    seen = rollout.of_class_token(attention, (image.shape[1] // patch, image.shape[2] // patch))
    return np.asarray(jax.image.resize(seen, image.shape[:3], "bilinear")[0])


METHODS: dict[str, Method] = {
    "saliency": _by_pixels(lambda subject, image, asked, baseline: gradients.saliency(subject.raw, image)),
    "smooth_grad": _by_pixels(
        lambda subject, image, asked, baseline: gradients.smooth_grad(subject.raw, image, jax.random.key(asked.seed))
    ),
    "integrated_gradients": _by_pixels(
        lambda subject, image, asked, baseline: gradients.integrated_gradients(
            subject.raw, image, jnp.broadcast_to(baseline, image.shape)
        )
    ),
    "grad_cam": _by_layer(cam.grad_cam),
    "grad_cam_plus_plus": _by_layer(cam.grad_cam_plus_plus),
    "odam": _by_layer(cam.odam),
    "occlusion": _occlusion,
    "rise": _rise,
    "d_rise": _rise,
    "rollout": _rollout,
}
"""Methods by the name that the command gives them; `d_rise` is `rise` of a detection."""


class Explanation(NamedTuple):
    """A map of an image, and what it is worth."""

    subject: Subject
    map: Map
    score: float
    deletion: judging.Curve
    insertion: judging.Curve
    inside: float | None
    """Energy inside the box; None without one."""
    points: bool | None
    """Whether the highest value lies in the box; None without one."""
    correlation: float | None
    """Rank correlation with the map of the network with randomised parameters; None where it was not asked for."""


def explain(
    task: Task,
    variables: Variables,
    batch: Batch,
    classes: tuple[str, ...],
    method: str,
    asked: Asked = BEST,
    *,
    check: bool = False,
) -> Explanation:
    """The explanation of the first image of a batch, judged.

    Raises:
      ConfigError: for what is not there: a method, class, detection, layer; or a map of zeros.
    """
    subject = find(task, variables, batch, classes, asked)
    map = judging.check_nonzero(mapped(subject, batch, method, asked), subject.name)
    correlation = None
    if check:
        correlation = correlation_when_random(task, variables, batch, classes, method, asked, subject, map)
    image, baseline = _content(batch)
    whole = np.full(image.shape[1:3], -np.inf)
    whole[: map.shape[0], : map.shape[1]] = map
    box = None if subject.chosen is None else judging.inside(subject.chosen.box, map.shape)
    return Explanation(
        subject,
        map,
        float(scores.values(subject.shown, image)[0]),
        judging.deletion(subject.shown, image[0], whole, baseline),
        judging.insertion(subject.shown, image[0], whole, baseline),
        None if box is None else judging.energy_inside(map, box),
        None if box is None else judging.points_inside(map, box),
        correlation,
    )


def mapped(subject: Subject, batch: Batch, method: str, asked: Asked = BEST) -> Map:
    """The map of the content of the first image of a batch, whatever it is worth.

    Raises:
      ConfigError: for a method or a layer that is not there.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method {method!r}{nearest(method, list(METHODS), shown=len(METHODS))}")
    image, baseline = _content(batch)
    height, width = (int(side) for side in batch.size[0])
    return np.asarray(METHODS[method](subject, image, asked, baseline))[:height, :width]


def _content(batch: Batch) -> tuple[Float[Array, "1 h w c"], Float[Array, "c"]]:
    """The first image of a batch, and the mean of its content: the colour of what is hidden."""
    image = jnp.asarray(batch.image[:1], jnp.promote_types(batch.image.dtype, jnp.float32))
    height, width = (int(side) for side in batch.size[0])
    return image, image[0, :height, :width].mean((0, 1))


def correlation_when_random(
    task: Task,
    variables: Variables,
    batch: Batch,
    classes: tuple[str, ...],
    method: str,
    asked: Asked,
    subject: Subject,
    map: Map,
) -> float:
    """The rank correlation of a map with that of the same class, or of the best candidate, with randomised parameters.

    NaN where that map is constant, as where no candidate is left.
    """
    random = judging.randomised(variables, asked.seed)
    if subject.chosen is None:
        other = of_label(task, random, batch, classes, subject.label, jax.jit(task.predict)(variables, batch))
    else:
        try:
            chosen = nearest_candidate(task, random, batch, subject.chosen.box, subject.label)
        except ConfigError:
            return float("nan")
        other = of_detector(task, random, batch, classes, asked, chosen._replace(box=subject.chosen.box))
    return judging.rank_correlation(map, mapped(other, batch, method, asked))
