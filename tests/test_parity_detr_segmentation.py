"""DETR-R50 with masks against transformers, whole: python -m pytest -m parity."""

import numpy as np
import parity_detr_segmentation as parity
import pytest

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("form", [parity.SMALL, parity.FULL], ids=["small", "full"])
def test_it_equals_transformers(form, float64, capsys):
    shapes, theirs = parity.figures_torch(form)
    ours = parity.figures(shapes, form)
    assert set(ours["gradients"]) == set(theirs["gradients"])
    errors = {name: np.abs(ours[name] - theirs[name]).max() for name in ("logits", "boxes", "masks", "loss")}
    for name, found, other in zip(parity.TERMS, ours["terms"], theirs["terms"], strict=True):
        errors[name] = np.abs(found - other)
    norms = {name: np.linalg.norm(gradient) for name, gradient in theirs["gradients"].items()}
    least = 1e-6 * max(norms.values())
    errors["gradients"] = max(
        np.linalg.norm(ours["gradients"][name] - gradient) / max(norms[name], least)
        for name, gradient in theirs["gradients"].items()
    )
    with capsys.disabled():
        shown = {name: f"{error:.1e}" for name, error in errors.items()}
        print(f"\nDETR with masks on {form.backbone}, largest errors: {shown}")
        print(f"terms {np.round(theirs['terms'], 4).tolist()}, loss {theirs['loss']:.6f}")
    assert max(error for name, error in errors.items() if name != "gradients") < 1e-9
    assert errors["gradients"] < 1e-7
    parity.assert_same(parity.golden_of(shapes, ours), parity.golden_of(shapes, theirs))
