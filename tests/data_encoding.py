"""Makes encoded images and prepared datasets for the tests of the data room."""

import io

import numpy as np
from PIL import Image


def encoded(pixels, kind="PNG", **options):
    """Pixels (an array or a PIL image) as the bytes of a file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(*shape, seed=0):
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def smooth(height, width, seed=0):
    """A colourful photograph-like image: noise, blurred and stretched."""
    small = Image.fromarray(noise(max(2, height // 16), max(2, width // 16), 3, seed=seed))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def labelled(n, height=9, width=7, classes=("ant", "bee", "cat"), seed=0):
    """Noise images and their labels, sorted by label, so that a folder source lists them in the same order."""
    labels = np.sort(np.random.RandomState(seed).randint(0, len(classes), n))
    labels[: len(classes)] = np.arange(len(classes))
    return noise(n, height, width, 3, seed=seed), np.sort(labels), classes


def write_folder(root, images, labels, classes):
    """`<class>/<number>.png`."""
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05d}.png").write_bytes(encoded(image))
    return root


def prepare_tfds(data_dir, name, version, features, splits, file_format="array_record"):
    """Has TFDS itself write a dataset; `splits` are lists of examples. Returns its folder."""
    builder = tfds_builder(name, version, features, splits)(data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare()
    return builder.data_path


def tfds_builder(name, version, features, splits):
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Written(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version(version)

            def _info(self):
                described = tfds.features.FeaturesDict(features(tfds))
                return tfds.core.DatasetInfo(builder=self, features=described, disable_shuffling=True)

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in splits}

            def _generate_examples(self, split):
                yield from enumerate(splits[split])

    Written.name = name
    return Written


def image_and_label(classes):
    return lambda tfds: {
        "image": tfds.features.Image(encoding_format="png"),
        "label": tfds.features.ClassLabel(names=list(classes)),
    }


def examples(images, labels, **more):
    return [
        {"image": image, "label": int(label), **{key: values[i] for key, values in more.items()}}
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
