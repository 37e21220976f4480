"""Explanations against captum 0.9.0 and grad-cam 1.5.7 on torchvision's ResNet-18, live: python -m pytest -m parity."""

import pytest
from explained_resnet import explained
from numpy.testing import assert_allclose

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("float64")]


def test_maps_equal_those_of_captum_and_grad_cam():
    parity = pytest.importorskip("parity_explain")
    from torchvision.models import resnet18

    expected = parity.reference(7, (2, 64, 64, 3))
    found = explained(parity.shapes_torch(resnet18(num_classes=10)), 7, (2, 64, 64, 3))
    assert found.keys() == expected.keys()
    for name, theirs in expected.items():
        assert abs(theirs).max() > 1e-3
        assert_allclose(found[name], theirs, rtol=0, atol=1e-6, err_msg=name)
