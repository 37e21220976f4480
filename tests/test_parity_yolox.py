"""YOLOX against its authors' code, whole networks: python -m pytest -m parity.

Needs their code beside the extra `parity`: pip install --no-deps pixeltable-yolox loguru tabulate thop pycocotools
"""

import numpy as np
import parity_yolox
import pytest

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore:.*torch.cuda.amp.autocast")]


@pytest.mark.parametrize("size", ["nano", "s"])
def test_yolox_equals_its_authors(size, float64, capsys):
    shapes, theirs = parity_yolox.figures_torch(size)
    ours = parity_yolox.figures(size, shapes)
    errors = {
        "outputs": np.abs(ours["outputs"] - theirs["outputs"]).max(),
        "losses": np.abs(np.subtract(ours["losses"], theirs["losses"])).max(),
        **{name: worst(ours[name], theirs[name]) for name in ("gradients", "statistics")},
    }
    assert [len(each) for each in ours["detections"]] == [len(each) for each in theirs["detections"]]
    pairs = zip(ours["detections"], theirs["detections"], strict=True)
    errors["detections"] = max(np.abs(a - b).max(initial=0) for a, b in pairs)
    with capsys.disabled():
        print(f"\nYOLOX {size}, largest errors: { {name: f'{error:.1e}' for name, error in errors.items()} }")
        print(f"losses {theirs['losses']}, detections {[len(each) for each in theirs['detections']]}")
    assert max(errors.values()) < 1e-6
    assert max(errors["outputs"], errors["losses"]) < 1e-7
    parity_yolox.assert_same(parity_yolox.golden_of(shapes, ours), parity_yolox.golden_of(shapes, theirs))


def worst(ours, theirs):
    """Of all arrays, relative to the norm; of those almost zero, to a millionth of the largest."""
    assert set(ours) == set(theirs)
    norms = {name: np.linalg.norm(array) for name, array in theirs.items()}
    least = 1e-6 * max(norms.values())
    return max(np.linalg.norm(ours[name] - theirs[name]) / max(norms[name], least) for name in theirs)


@pytest.mark.parametrize("size", parity_yolox.SIZES)
def test_parameters_are_those_of_the_authors(size):
    import torch
    from parity_networks import parameter_count

    with torch.device("meta"):
        theirs = sum(x.numel() for x in parity_yolox.model_torch(size, 80).parameters())
    import jax.numpy as jnp

    assert parameter_count(parity_yolox.network_of(size, 80, jnp.float32), 64) == theirs
