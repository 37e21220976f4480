"""Metrics of learned attributes: accuracy and F1 of each, over the objects of which it is known."""

from collections.abc import Collection, Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from jaxvision.metrics.classification import decision_metrics
from jaxvision.types import Batch, ClassScores, Metric, Rows


def attributes(values: Mapping[str, Sequence[str]], several: Collection[str] = ()) -> Metric:
    """Metrics of attributes by name, with the names of their values; of those in `several` an object may have any number.

    The metrics:
      accuracy/<name>: fraction of the objects whose value is the one of the best score; of several values, the fraction of
        values that are rightly there or not (a score above 0, so a probability above a half, says that one is).
      f1/<name>: F1 of the values, their mean over those that occur among truth or predictions.
      f1_macro: mean of the latter over the attributes. One that is known of no object has neither, and is left out.
    """

    def observe(scores: Mapping[str, ClassScores], batch: Batch) -> Rows:
        rows = {}
        for name in values:
            labels, logits = batch.target[name], scores[name].logits
            rows[f"{name}:known"] = jnp.asarray(labels.weight) > 0
            rows[f"{name}:label"] = labels.probs > 0.5 if name in several else jnp.asarray(labels.label, jnp.int32)
            rows[f"{name}:predicted"] = logits > 0 if name in several else logits.argmax(-1).astype(jnp.int32)
        return rows

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        accuracy, f1 = {}, {}
        for name, names in values.items():
            known = np.asarray(rows[f"{name}:known"], bool)
            if not known.any():
                continue
            label, predicted = (np.asarray(rows[f"{name}:{what}"])[known] for what in ("label", "predicted"))
            if name in several:
                accuracy[name], f1[name] = float((label == predicted).mean()), f1_of_several(label, predicted)
            else:
                found = decision_metrics({"label": label, "predicted": predicted}, tuple(names))
                accuracy[name], f1[name] = found["accuracy"], found["f1_macro"]
        metrics = {"f1_macro": float(np.mean(list(f1.values())))} if f1 else {}
        return (
            metrics
            | {f"accuracy/{n}": each for n, each in accuracy.items()}
            | {f"f1/{n}": each for n, each in f1.items()}
        )

    return Metric(observe, compute)


def f1_of_several(label: Bool[np.ndarray, "n k"], predicted: Bool[np.ndarray, "n k"]) -> float:
    """Mean F1 of the values that occur, each of which may be there or not; 1 where none does."""
    right, total = (label & predicted).sum(0), label.sum(0) + predicted.sum(0)
    found = 2 * right[total > 0] / total[total > 0]
    return float(found.mean()) if len(found) else 1.0
