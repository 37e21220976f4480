"""DETR-R50 against transformers, whole: python -m pytest -m parity."""

import numpy as np
import parity_detr
import pytest

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("form", [parity_detr.SMALL, parity_detr.FULL], ids=["small", "full"])
def test_it_equals_transformers(form, float64, capsys):
    shapes, theirs = parity_detr.figures_torch(form)
    ours = parity_detr.figures(shapes, form)
    assert set(ours["gradients"]) == set(theirs["gradients"])
    errors = {name: np.abs(ours[name] - theirs[name]).max() for name in ("logits", "boxes", "loss", "detections")}
    for name, own, other in zip(parity_detr.TERMS, ours["terms"], theirs["terms"], strict=True):
        errors[f"{name} of every layer"] = np.abs(own - other).max()
    norms = {name: np.linalg.norm(gradient) for name, gradient in theirs["gradients"].items()}
    least = 1e-6 * max(norms.values())
    errors["gradients"] = max(
        np.linalg.norm(ours["gradients"][name] - gradient) / max(norms[name], least)
        for name, gradient in theirs["gradients"].items()
    )
    with capsys.disabled():
        print(
            f"\nDETR on {form.backbone}, largest errors: { {name: f'{error:.1e}' for name, error in errors.items()} }"
        )
        print(f"terms of every layer: {np.round(theirs['terms'], 4).tolist()}, loss {theirs['loss']:.6f}")
    assert max(error for name, error in errors.items() if name != "gradients") < 1e-9
    assert errors["gradients"] < 1e-7
    parity_detr.assert_same(parity_detr.golden_of(shapes, ours), parity_detr.golden_of(shapes, theirs))
