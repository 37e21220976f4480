"""Metrics of single-label classification."""

from collections import Counter
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxvision.errors import amount
from jaxvision.metrics import calibration
from jaxvision.types import Batch, ClassScores, Labels, Metric, Rows

FEW_CLASSES = 20
"""Most classes for which every class gets metrics of its own, unless `per_class` says otherwise."""


def classification(
    classes: Sequence[str] | int, *, top: int = 5, bins: int = 15, per_class: bool | None = None
) -> Metric:
    """Accuracy, plain and balanced, precision, recall, F1, log loss and calibration of a classifier.

    The rows: `label` and `predicted` (int32), `rank` of the true class among the scores (0 is the best; of equal scores
    the class with the smaller number comes first), `log_probability` of the true class, `confidence` (the largest
    probability). Computed in float32 at least, whatever the type of the logits.

    The metrics:
      accuracy, top5_accuracy: fraction of the examples whose true class has the best, or one of the `top` best scores; the
        second only for more than `top` classes.
      balanced_accuracy: mean recall of the classes that have examples, as scikit-learn has it.
      precision_macro, recall_macro, f1_macro: means over the classes that occur, among the labels or the predictions
        (as scikit-learn and torchmetrics have it). A class without predictions has precision 0, one without examples
        recall 0, in both cases F1 0.
      precision_micro, recall_micro, f1_micro: from the counts of all classes together. With one label an example and one
        prediction, all three equal the accuracy.
      log_loss: mean of -log_probability, in nats; infinite where a true class has probability 0.
      calibration_error: expected difference of confidence and accuracy over `bins` bins of equal width, each open below
        and closed above (arXiv:1706.04599, equation 3).
      precision/<class>, recall/<class>, f1/<class>: for every class of `classes`, where there are at most 20 of them, or
        `per_class=True`. A name that occurs twice is told apart by its number.

    An example with NaN among its scores has a NaN log probability and the last rank: it counts as wrong wherever ranks
    count, and log_loss and calibration_error are then NaN.

    Raises:
      ValueError: no class, `top` or `bins` below 1; in `observe`, logits of another number of classes; in `compute`, no
        rows, or a label that is no class.
      TypeError: in `observe`, a target other than Labels.
    """
    names = class_names(classes)
    if top < 1 or bins < 1:
        raise ValueError(f"classification(top={top}, bins={bins}): both must be 1 or more")
    named = len(names) <= FEW_CLASSES if per_class is None else per_class

    def observe(scores: ClassScores, batch: Batch) -> Rows:
        return _observe(scores.logits, labels_of(batch), len(names))

    def compute(rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        check_rows(rows, len(names))
        metrics = _ranking(rows["rank"], top, len(names)) | _agreement(rows, len(names))
        metrics["log_loss"] = -_mean(rows["log_probability"])
        metrics["calibration_error"] = calibration.error(rows["confidence"], rows["predicted"] == rows["label"], bins)
        return metrics | (_class_metrics(rows, names) if named else {})

    return Metric(observe, compute)


def confusion_matrix(rows: Mapping[str, np.ndarray], k: int) -> Int[np.ndarray, "k k"]:
    """Counts of examples of class i (the row) that were predicted as class j (the column)."""
    check_rows(rows, k)
    label, predicted = (np.asarray(rows[name], np.int64) for name in ("label", "predicted"))
    return np.bincount(label * k + predicted, minlength=k * k).reshape(k, k)


def decision_metrics(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, float]:
    """The metrics of `classification` that follow from `label` and `predicted` alone."""
    metrics = {"accuracy": _mean(rows["label"] == rows["predicted"])} | _agreement(rows, len(names))
    return metrics | (_class_metrics(rows, names) if len(names) <= FEW_CLASSES else {})


def class_names(classes: Sequence[str] | int) -> tuple[str, ...]:
    """The names of classes, or of that number of classes, each only once. Raises ValueError if there is none."""
    names = tuple(str(i) for i in range(classes)) if isinstance(classes, int) else tuple(classes)
    if isinstance(classes, str) or not names:
        raise ValueError(f"classification(classes={classes!r}): allowed are class names or their number, 1 or more")
    times = Counter(names)
    return tuple(name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(names))


def labels_of(batch: Batch) -> Int[Array, "b"]:
    """The labels of a batch, int32. Raises TypeError for a target other than Labels."""
    if not isinstance(batch.target, Labels):
        raise TypeError(f"the classification metric needs batch.target to be Labels, got {type(batch.target).__name__}")
    return jnp.asarray(batch.target.label).astype(jnp.int32)


def _observe(logits: Float[Array, "b k"], label: Int[Array, "b"], classes: int) -> Rows:
    if logits.shape[-1] != classes:
        raise ValueError(f"the metric was made for {amount(classes, 'class')}, the logits have {logits.shape[-1]}")
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float64 if logits.dtype == jnp.float64 else jnp.float32))
    labelled = jnp.arange(classes, dtype=jnp.int32)[None, :] == label[:, None]
    return {
        "label": label,
        "predicted": jnp.argmax(logits, axis=-1).astype(jnp.int32),
        "rank": _rank(logits, label),
        "log_probability": jnp.sum(log_probabilities, axis=-1, where=labelled),
        "confidence": jnp.exp(jnp.max(log_probabilities, axis=-1)),
    }


def _rank(logits: Float[Array, "b k"], label: Int[Array, "b"]) -> Int[Array, "b"]:
    """Rank of the labelled class: how many classes stand before it; all of them, where NaN leaves the order open."""
    number = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, :]
    labelled_logit = jnp.max(logits, axis=-1, where=number == label[:, None], initial=-jnp.inf, keepdims=True)
    behind = (logits < labelled_logit) | ((logits == labelled_logit) & (number >= label[:, None]))
    return jnp.sum(~behind, axis=-1, dtype=jnp.int32)


def check_rows(rows: Mapping[str, np.ndarray], k: int) -> None:
    """Raises ValueError for no rows, or a label that is none of k classes."""
    label = np.asarray(rows["label"])
    if not len(label):
        raise ValueError("no examples to compute metrics of: the rows are empty")
    wrong = np.flatnonzero((label < 0) | (label >= k))
    if len(wrong):
        where = f"the example with index {rows['index'][wrong[0]]}" if "index" in rows else f"row {wrong[0]}"
        raise ValueError(f"{where} has label {label[wrong[0]]}; with {amount(k, 'class')}, labels are 0 to {k - 1}")


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values, dtype=np.float64))


def _ranking(rank: Int[np.ndarray, "n"], top: int, k: int) -> dict[str, float]:
    best = {f"top{top}_accuracy": _mean(rank < top)} if k > top else {}
    return {"accuracy": _mean(rank < 1)} | best


def _counts(rows: Mapping[str, np.ndarray], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts for each class: examples predicted right, predictions, examples."""
    label, predicted = rows["label"], rows["predicted"]
    right, predictions, examples = (
        np.bincount(which, minlength=k) for which in (label[label == predicted], predicted, label)
    )
    return right, predictions, examples


def balanced_accuracy(right: np.ndarray, predictions: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Mean recall of the classes that have examples, from the counts of each class on the last axis.

    Takes how many examples were predicted right, how many predictions and how many examples each class has.
    """
    recall = _precision_recall_f1(right, predictions, examples)["recall"]
    return np.mean(recall, axis=-1, where=examples > 0)


def f1_macro(right: np.ndarray, predictions: np.ndarray, examples: np.ndarray) -> np.ndarray:
    """Mean F1 of the classes that occur, among the examples or the predictions; arguments as `balanced_accuracy`."""
    f1 = _precision_recall_f1(right, predictions, examples)["f1"]
    return np.mean(f1, axis=-1, where=predictions + examples > 0)


def _precision_recall_f1(
    right: np.ndarray, predictions: np.ndarray, examples: np.ndarray
) -> dict[str, Float[np.ndarray, "k"]]:
    return {
        "precision": right / np.maximum(predictions, 1),
        "recall": right / np.maximum(examples, 1),
        "f1": 2 * right / np.maximum(predictions + examples, 1),
    }


def _agreement(rows: Mapping[str, np.ndarray], k: int) -> dict[str, float]:
    counts = _counts(rows, k)
    occurs = counts[1] + counts[2] > 0
    macro = {f"{name}_macro": _mean(values[occurs]) for name, values in _precision_recall_f1(*counts).items()}
    total = _precision_recall_f1(*(np.sum(count, keepdims=True) for count in counts))
    micro = {f"{name}_micro": float(values[0]) for name, values in total.items()}
    return {"balanced_accuracy": float(balanced_accuracy(*counts))} | macro | micro


def _class_metrics(rows: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, float]:
    metrics = _precision_recall_f1(*_counts(rows, len(names)))
    return {
        f"{metric}/{name}": float(v)
        for metric, values in metrics.items()
        for name, v in zip(names, values, strict=True)
    }
