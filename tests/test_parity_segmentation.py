"""Semantic segmenters against torchvision, and against the paper's FCN in torch: python -m pytest -m parity."""

import jax
import parity_segmentation
import pytest
from parity_networks import spec_of

from jaxvision.tasks.deeplab import deeplabv3_resnet50
from jaxvision.tasks.fcn import fcn_resnet50

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("name", parity_segmentation.NAMES)
def test_a_segmenter_equals_its_reference(float64, capsys, name):
    shapes, theirs = parity_segmentation.figures_torch(name)
    errors = parity_segmentation.errors_of(parity_segmentation.figures(name, shapes), theirs)
    with capsys.disabled():
        print(f"\n{name}, losses {theirs['losses']}; largest errors:")
        print("  ".join(f"{name} {error:.1e}" for name, error in errors.items()))
    assert max(errors.values()) < 1e-7


@pytest.mark.parametrize("network", [fcn_resnet50, deeplabv3_resnet50])
@pytest.mark.parametrize("auxiliary", [True, False])
def test_the_number_of_parameters_is_torchvisions(network, auxiliary):
    import torchvision

    make = getattr(torchvision.models.segmentation, network.__name__)
    model = make(weights=None, weights_backbone=None, aux_loss=auxiliary)
    count = sum(x.size for x in jax.tree.leaves(spec_of(network(21, auxiliary=auxiliary), (1, 64, 64, 3))["params"]))
    assert count == sum(x.numel() for x in model.parameters())
