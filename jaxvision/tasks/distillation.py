"""Distillation of detectors with anchors (arXiv:1503.02531): a student learns the scores and boxes of a fixed teacher."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxvision.ops import boxes, raw_scores
from jaxvision.ops.extremes import maximum
from jaxvision.ops.raw_scores import Candidates
from jaxvision.tasks import detection
from jaxvision.tasks.detection import LossTerms
from jaxvision.types import Batch, Key, LossOutput, Prediction, Scalar, Task, Variables

LEAST = 1e-6
"""What probabilities are kept from 0 and 1, so that their logarithms are finite."""


class Lesson(NamedTuple):
    """What a teacher's part of the loss is."""

    classes: float = 1.0
    """Weight of the difference of the scores."""
    boxes: float = 1.0
    """Weight of the difference of the boxes."""
    sure: float = 0.3
    """Anchors whose best score by the teacher is above it learn its box."""


LESSON = Lesson()
"""Both terms as they are, and boxes of scores above 0.3."""


def taught(student: Task, teacher: Task, teacher_variables: Variables, lesson: Lesson = LESSON) -> Task:
    """The student's task with a fixed teacher's scores and boxes of every anchor to learn beside the ground truth.

    The loss is the student's plus `lesson.classes * taught_class_loss + lesson.boxes * taught_box_loss`, see `loss_terms`.
    The teacher sees the same augmented images, and predicts as it does in evaluation. Its variables are a collection
    `teacher`: saved with the run, never trained. `predict` is the student's.

    Args:
      student: SSD or RetinaNet.
      teacher: a detector with the same anchors and classes.
      teacher_variables: its parameters and collections.
      lesson: weights of both terms, and whose boxes are learned.

    Raises:
      ValueError: for a weight below 0 or a threshold outside 0 to 1; in use, for a student or a teacher that tells no
        scores of anchors, and for a teacher with other anchors or classes.
    """
    if not (lesson.classes >= 0 and lesson.boxes >= 0 and 0 <= lesson.sure <= 1):
        raise ValueError(f"taught: {lesson}; classes and boxes must be at least 0, sure from 0 to 1")

    def init(key: Key, batch: Batch) -> Variables:
        return {**student.init(key, batch), "teacher": teacher_variables}

    def loss(variables: Variables, batch: Batch, key: Key) -> tuple[Scalar, LossOutput]:
        with raw_scores.listening() as heard:
            teacher.predict(variables["teacher"], batch)
        wanted = jax.lax.stop_gradient(_only(heard, "teacher"))
        with raw_scores.listening() as heard:
            plain, out = student.loss(_without_teacher(variables), batch, key)
        found = _only(heard, "student")
        check_alike(found, wanted)
        terms = jax.vmap(lambda each, other: loss_terms(each, other, lesson))(found, wanted)
        terms = jax.tree.map(lambda x: jnp.where(batch.valid, x, 0), terms)
        weighed = LossTerms({name: _weight(lesson, name) * x for name, x in terms.sums.items()}, terms.counts)
        more, extra = detection.loss_of(weighed, {})
        by_example = None
        if out.example_loss is not None and extra.example_loss is not None:
            by_example = out.example_loss + extra.example_loss
        metrics = {**out.metrics, **detection.means(jax.tree.map(lambda x: x.sum(0), terms))}
        return plain + more, LossOutput(metrics, out.collections, by_example)

    def predict(variables: Variables, batch: Batch) -> Prediction:
        return student.predict(_without_teacher(variables), batch)

    return Task(init, loss, predict)


def loss_terms(found: Candidates, wanted: Candidates, lesson: Lesson = LESSON) -> LossTerms:
    """Sums of `taught_class_loss` and `taught_box_loss` over the anchors of one image.

    The first is the Kullback-Leibler divergence of the student's score from the teacher's, of every anchor and class by
    itself. The second is one less the generalised IoU with the teacher's box, of anchors of which the teacher is sure, each
    by its best score. Both are by the sum of the best scores of all anchors, in each image at least 1.
    """
    best = wanted.scores.max(-1)
    weight = jnp.where(best > lesson.sure, best, 0)
    by_box = weight * (1 - boxes.giou(found.boxes, wanted.boxes))
    sums = {"taught_class_loss": divergence(found.scores, wanted.scores).sum(), "taught_box_loss": by_box.sum()}
    return LossTerms(sums, dict.fromkeys(sums, maximum(best.sum(), 1.0)))


def divergence(found: Float[Array, "*s"], wanted: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """The Kullback-Leibler divergence of probabilities from wanted ones, each of a class against all else."""
    found, wanted = (jnp.clip(x, LEAST, 1 - LEAST) for x in (found, wanted))
    present = wanted * (jnp.log(wanted) - jnp.log(found))
    return present + (1 - wanted) * (jnp.log1p(-wanted) - jnp.log1p(-found))


def check_alike(found: Candidates, wanted: Candidates) -> None:
    """Raises ValueError where a student and a teacher have other anchors or classes."""
    (anchors, classes), (others, taught_classes) = found.scores.shape[-2:], wanted.scores.shape[-2:]
    if classes != taught_classes:
        raise ValueError(
            f"taught: the number of classes is {taught_classes} of the teacher and {classes} of the student; "
            "allowed is the same"
        )
    if anchors != others or found.boxes.shape != wanted.boxes.shape:
        raise ValueError(
            f"taught: the teacher has {others} anchors and boxes of shape {wanted.boxes.shape}, the student {anchors} and "
            f"{found.boxes.shape}; allowed is the same"
        )


def _only(heard: Sequence[Candidates], who: str) -> Candidates:
    if len(heard) != 1:
        does = "training" if who == "student" else "predicting"
        raise ValueError(f"taught: the {who} tells no scores of anchors while {does}; SSD and RetinaNet do")
    return heard[0]


def _weight(lesson: Lesson, name: str) -> float:
    return lesson.classes if name == "taught_class_loss" else lesson.boxes


def _without_teacher(variables: Variables) -> Variables:
    return {name: value for name, value in variables.items() if name != "teacher"}
