import tracemalloc

import numpy as np
from PIL import Image

from jaxvision.data import arrays
from jaxvision.draw import classification


def stream(count=21, batch_size=4):
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 6, 5, 1), np.uint8)
    labels = np.arange(count) % 3
    source = arrays.source(images, labels, classes=("a", "b", "c"))
    return arrays.evaluation(lambda: source, canvas=(8, 8), batch_size=batch_size, channels=1), labels


def test_images_are_found_by_their_index_and_cut_to_their_content():
    found = classification.images_of(stream()[0], [20, 3, 4])
    assert {i: (image.shape, int(image[0, 0, 0])) for i, image in found.items()} == {
        i: ((6, 5, 1), i) for i in (3, 4, 20)
    }
    assert all((image == image[0, 0, 0]).all() for image in found.values())


def test_mistakes_come_most_confident_first_and_the_sample_is_spread():
    rows = {
        "label": np.array([0, 1, 2, 0]),
        "predicted": np.array([1, 1, 0, 2]),
        "confidence": np.array([0.5, 0.99, 0.9, 0.7]),
    }
    assert classification.most_confident_mistakes(rows, 2).tolist() == [2, 3]
    assert classification.spread(10, 4).tolist() == [0, 3, 6, 9]
    assert classification.spread(3, 40).tolist() == [0, 1, 2]
    assert classification.spread(1, 40).tolist() == [0]


def test_the_report_has_mistakes_only_where_there_are_some(tmp_path):
    data, labels = stream()
    rows = {"label": labels, "predicted": labels, "confidence": np.full(21, 0.9), "index": np.arange(21)}
    classification.report(tmp_path, "test", rows, data)
    assert {path.name for path in tmp_path.iterdir()} == {"test_confusion.png", "test_predictions.png"}
    rows["predicted"] = np.zeros(21, int)
    classification.report(tmp_path, "test", rows, data)
    with Image.open(tmp_path / "test_mistakes.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 5


def test_of_22000_classes_no_matrix_is_drawn_and_that_is_said(tmp_path, caplog):
    images, labels = np.zeros((4, 6, 5, 1), np.uint8), np.array([0, 1, 20_000, 21_999])
    source = arrays.source(images, labels, classes=[f"class {k}" for k in range(22_000)])
    data = arrays.evaluation(lambda: source, canvas=(8, 8), batch_size=4, channels=1)
    rows = {"label": labels, "predicted": labels, "confidence": np.full(4, 0.9), "index": np.arange(4)}
    tracemalloc.start()
    classification.report(tmp_path, "test", rows, data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    assert [path.name for path in tmp_path.iterdir()] == ["test_predictions.png"]
    assert "test: no confusion matrix of 22000 classes; it is drawn up to 4000" in caplog.text
