"""Errors of data and weights name the field of the config that they are about."""

import pytest

from jaxvision.errors import ConfigError, DataError, UserError, WeightsError
from jaxvision.run.config import naming_fields

CONFIG = {
    "train_dir": "my_images",
    "deep": {"test_dir": "/data/x"},
    "on_bad_image": "raise",
    "weights": "a/b.pth",
    "n": 3,
}


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        (DataError, "my_images is no folder; expected one", "--config.train_dir: my_images is no folder; expected one"),
        (
            DataError,
            '/data/x/cat/1.jpg: the file is empty; on_bad_image="skip" goes on without it',
            "--config.deep.test_dir: /data/x/cat/1.jpg: the file is empty; --config.on_bad_image=skip goes on without it",
        ),
        (WeightsError, "a/b.pth: no weights in it", "--config.weights: a/b.pth: no weights in it"),
        (WeightsError, "a/b.pth.part: no weights in it", "a/b.pth.part: no weights in it"),
        (ConfigError, "config.weights is a/b.pth", "config.weights is a/b.pth"),
        (UserError, "/data/x is full", "/data/x is full"),
    ],
)
def test_the_field_is_named(kind, text, told):
    with pytest.raises(kind) as raised, naming_fields(CONFIG):
        raise kind(text)
    assert str(raised.value) == told
    assert type(raised.value) is kind
