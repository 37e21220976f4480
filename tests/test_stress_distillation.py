"""Stress of the types, 2: knowledge distillation (arXiv:1503.02531) from a fixed teacher, which is a collection."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvision import train
from jaxvision.tasks.classification import classification, example_weight, weighted_mean
from jaxvision.types import LossOutput, Task


def distilled(student: Task, teacher: Task, teacher_variables, student_logits, temperature=2.0) -> Task:
    def init(key, batch):
        return {**student.init(key, batch), "teacher": teacher_variables}

    def loss(variables, batch, key):
        own = {name: value for name, value in variables.items() if name != "teacher"}
        hard, out = student.loss(own, batch, key)
        target = teacher.predict(variables["teacher"], batch).logits / temperature
        logits = student_logits(own, batch) / temperature
        terms = optax.losses.kl_divergence_with_log_targets(jax.nn.log_softmax(logits), jax.nn.log_softmax(target))
        soft = weighted_mean(terms, example_weight(batch))
        return hard + temperature**2 * soft, LossOutput({**out.metrics, "soft": soft}, out.collections, terms)

    return Task(init, loss, student.predict)


def test_the_teacher_stays_and_the_student_follows(tiny_net, colour_batch, train_steps, strict_gradient):
    batch = colour_batch()
    teacher = classification(tiny_net(width=16))
    taught, _ = train_steps(teacher, batch, steps=60)

    student = classification(tiny_net(width=4, norm=False))
    task = distilled(student, teacher, dict(taught.averaged), lambda v, b: student.predict(v, b).logits)
    state, losses = train_steps(task, batch, steps=60, average=train.exponential_average(0.9))

    assert losses[-1] < 0.5 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, state.collections["teacher"], dict(taught.averaged))
    assert "teacher" not in state.ema
    loss, grads = strict_gradient(task, state.variables, batch)
    assert jax.tree.structure(grads) == jax.tree.structure(state.params)
    assert jnp.isfinite(loss)
