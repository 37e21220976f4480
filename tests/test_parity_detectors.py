"""The detectors against torchvision, whole networks: python -m pytest -m parity."""

import numpy as np
import parity_detectors
import pytest

pytestmark = pytest.mark.parity


@pytest.mark.filterwarnings("ignore:Changing trainable_backbone_layers")
def test_ssd300_equals_torchvision(float64, capsys):
    shapes, theirs = parity_detectors.ssd_figures_torch()
    ours = parity_detectors.ssd_figures(shapes)
    errors = {name: np.abs(ours[name] - theirs[name]).max() for name in ("logits", "offsets")}
    norms = {name: np.linalg.norm(gradient) for name, gradient in theirs["gradients"].items()}
    least = 1e-6 * max(norms.values())  # no box is matched on the finest map: its regression has none at all
    worst = {
        name: np.linalg.norm(ours["gradients"][name] - gradient) / max(norms[name], least)
        for name, gradient in theirs["gradients"].items()
    }
    # torchvision measures its default boxes in float32 even so.
    errors["losses"] = np.abs(np.divide(ours["losses"], theirs["losses"]) - 1).max()
    errors["gradients"] = max(worst.values())
    with capsys.disabled():
        print(f"\nSSD300-VGG16, largest errors: { {name: f'{error:.1e}' for name, error in errors.items()} }")
    assert max(errors["logits"], errors["offsets"], errors["losses"]) < 1e-7
    assert errors["gradients"] < 1e-6
    parity_detectors.assert_same(parity_detectors.golden_of(shapes, ours), parity_detectors.golden_of(shapes, theirs))
