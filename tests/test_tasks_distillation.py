"""A taught detector against NumPy loops; the teacher stays; the laws; a teacher that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from detectors import make_batch, small_retinanet, small_ssd

from jaxvision.nn import resnet
from jaxvision.ops.raw_scores import Candidates, listening
from jaxvision.tasks.distillation import Lesson, loss_terms, taught
from jaxvision.tasks.ssd import SSD, Extra, Features, paper, ssd
from jaxvision.types import LossOutput, Task


def giou(a, b):
    """The generalised IoU of two boxes (arXiv:1902.09630)."""
    over = max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - over
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return over / union - (around - union) / around


def loop(boxes, scores, wanted_boxes, wanted_scores, sure):
    """Both sums and their divisor, one anchor at a time."""
    by_class = by_box = total = 0.0
    for box, score, other, want in zip(boxes, scores, wanted_boxes, wanted_scores, strict=True):
        for s, t in zip(score, want, strict=True):
            by_class += t * np.log(t / s) + (1 - t) * np.log((1 - t) / (1 - s))
        best = max(want)
        total += best
        if best > sure:
            by_box += best * (1 - giou(box, other))
    return by_class, by_box, max(total, 1.0)


def random_candidates(seed, anchors=9, classes=3):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 20, (anchors, 2))
    return np.concatenate([low, low + rng.uniform(2, 20, (anchors, 2))], 1), rng.uniform(0.01, 0.9, (anchors, classes))


@pytest.mark.parametrize("faint", [False, True])
def test_terms_equal_a_loop(faint, float64):
    (boxes, scores), (others, wanted) = random_candidates(0), random_candidates(1)
    wanted = wanted / 100 if faint else wanted
    terms = loss_terms(
        Candidates(jnp.asarray(boxes), jnp.asarray(scores)), Candidates(jnp.asarray(others), jnp.asarray(wanted))
    )
    by_class, by_box, total = loop(boxes, scores, others, wanted, 0.3)
    np.testing.assert_allclose(terms.sums["taught_class_loss"], by_class, rtol=1e-9)
    np.testing.assert_allclose(terms.sums["taught_box_loss"], by_box, rtol=1e-9)
    np.testing.assert_allclose(list(terms.counts.values()), total, rtol=1e-12)
    assert (by_box == 0) == faint
    same = loss_terms(*2 * [Candidates(jnp.asarray(boxes), jnp.asarray(scores))])
    np.testing.assert_allclose(list(same.sums.values()), 0, atol=1e-12)


DETECTORS = {"ssd": small_ssd, "retinanet": small_retinanet}
made = {}


def both(name):
    """Student and teacher, of other weights, and a batch of which one image is not valid; made once."""
    if name not in made:
        task, batch = DETECTORS[name](), make_batch(dtype=np.float32)
        batch = batch.replace(valid=batch.valid.at[-1].set(False))
        init = jax.jit(task.init)
        lively = lambda variables: jax.tree.map(
            lambda x: x + 0.05 * jnp.sin(37.0 * jnp.arange(x.size)).reshape(x.shape), variables
        )
        student, teacher = (lively(init(jax.random.key(seed), batch)) for seed in (0, 1))
        made[name] = task, student, teacher, batch
    return made[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_loss_is_the_students_and_what_the_teacher_says_of_the_valid_images(name, strict_gradient):
    task, student, teacher, batch = both(name)
    lesson = Lesson(classes=2.0, boxes=0.5, sure=0.1)
    whole = taught(task, task, teacher, lesson)
    variables = {**student, "teacher": teacher}
    key = jax.random.key(1)
    loss, out = jax.jit(whole.loss)(variables, batch, key)
    plain, before = jax.jit(task.loss)(student, batch, key)

    def heard(call, *given):
        def run(*given):
            with listening() as kept:
                call(*given)
            return kept[0]

        return jax.device_get(jax.jit(run)(*given))

    found, wanted = heard(task.loss, student, batch, key), heard(task.predict, teacher, batch)
    rows = [
        loop(
            *(
                np.asarray(x[n], np.float64).clip(1e-6 if x is found[1] or x is wanted[1] else None)
                for x in (*found, *wanted)
            ),
            0.1,
        )
        for n in range(3)
    ]
    by_class, by_box, total = np.sum(rows, 0)
    np.testing.assert_allclose(out.metrics["taught_class_loss"], by_class / total, rtol=2e-3)
    np.testing.assert_allclose(out.metrics["taught_box_loss"], by_box / total, rtol=2e-3)
    np.testing.assert_allclose(loss, plain + 2 * by_class / total + 0.5 * by_box / total, rtol=2e-3)
    assert set(out.metrics) == {*before.metrics, "taught_class_loss", "taught_box_loss"}
    assert out.example_loss[3] == 0
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), out.collections, before.collections)
    first, gradient = strict_gradient(whole, variables, batch)
    assert jax.tree.structure(gradient) == jax.tree.structure(student["params"])
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))
    odd = batch.replace(image=batch.image.at[-1].set(3))
    np.testing.assert_allclose(strict_gradient(whole, variables, odd)[0], first, rtol=1e-6)


@pytest.mark.slow
def test_a_student_follows_its_teacher_whose_weights_stay(train_steps):
    task, _, teacher, batch = both("ssd")
    whole = taught(task, task, teacher, Lesson(classes=1.0, boxes=1.0, sure=0.1))
    assert set(jax.eval_shape(whole.init, jax.random.key(0), batch)) == {"params", "batch_stats", "teacher"}
    state, losses = train_steps(whole, batch, steps=12)
    assert losses[-1] < losses[0]
    jax.tree.map(np.testing.assert_array_equal, state.collections["teacher"], teacher)
    current = {name: x for name, x in state.current.items() if name != "teacher"}
    jax.tree.map(
        np.testing.assert_array_equal,
        whole.predict(state.current, batch.replace(target=None)),
        task.predict(current, batch),
    )


def test_a_teacher_that_does_not_fit_is_told():
    task, student, _, batch = both("ssd")
    backbone = resnet.Backbone(resnet.BasicBlock, (1, 1), width=8)
    network = lambda classes, anchors: SSD(Features(backbone, 0, (Extra(8, 16),)), classes, (anchors,) * 3)
    silent = Task(task.init, lambda *given: (jnp.zeros(()), LossOutput()), lambda *given: None)
    defaults = lambda *ratios: paper((0.2, 0.4, 0.6, 0.9), (ratios,) * 3, (4, 8, 16))
    more_classes = ssd(network(5, 4), defaults(2), mean=127.5, std=64.0)
    more_anchors = ssd(network(3, 6), defaults(2, 3), mean=127.5, std=64.0)

    def loss(student, teacher):
        fixed = jax.eval_shape(teacher.init, jax.random.key(0), batch)
        variables = {**jax.eval_shape(student.init, jax.random.key(0), batch), "teacher": fixed}
        jax.eval_shape(taught(student, teacher, fixed).loss, variables, batch, jax.random.key(0))

    for student, teacher, message in (
        (task, more_classes, r"the number of classes is 5 of the teacher and 3 of the student; allowed is the same"),
        (task, more_anchors, r"the teacher has 504 anchors .* the student 336"),
        (silent, task, r"the student tells no scores of anchors while training; SSD and RetinaNet do"),
        (task, silent, r"the teacher tells no scores of anchors while predicting"),
    ):
        with pytest.raises(ValueError, match=message):
            loss(student, teacher)
    for lesson in (Lesson(classes=-1), Lesson(sure=1.5), Lesson(boxes=float("nan"))):
        with pytest.raises(ValueError, match=r"classes and boxes must be at least 0, sure from 0 to 1"):
            taught(task, task, {}, lesson)
