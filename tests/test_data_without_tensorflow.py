"""In a process where TensorFlow and TFDS can't be imported: what needs neither works, what needs one says so."""

import subprocess
import sys
from pathlib import Path

import pytest
from data_encoding import labelled, write_folder
from detection_files import CLASSES, write_coco, write_voc, write_yolo

HERE = Path(__file__).parent
BLOCKED = f"""
import sys
sys.modules.update(dict.fromkeys(("tensorflow", "tensorflow_datasets", "array_record")))
sys.path.insert(0, {str(HERE)!r})
"""


def run(program):
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + program], capture_output=True, text=True, timeout=400, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def test_a_network_trains_on_a_folder_of_images(tmp_path):
    images, labels, classes = labelled(24)
    write_folder(tmp_path / "folder", images, labels, classes)
    out = run(f"""
import jax, optax
from jaxvision.data import folder, order, placement, streams
from jaxvision.nn.cnn import SmallCNN
from jaxvision.tasks.classification import classification
from jaxvision.train import init_state, make_train_step
stream = streams.training(lambda: folder.source({str(tmp_path / "folder")!r}), order=order.shuffled(0),
                          placer=placement.stretch(16), batch_size=8)
network = SmallCNN(len(stream.about().classes), channels=(4, 8), depth=1, dropout=0.0)
task, optimizer = classification(network, mean=100.0, std=60.0), optax.adam(1e-2)
state = init_state(task, optimizer, jax.random.key(0), stream.spec)
step, losses, batches = jax.jit(make_train_step(task, optimizer)), [], stream.batches(0)
for _ in range(30):
    state, metrics = step(state, next(batches))
    losses.append(float(metrics["loss"]))
print(sum(losses[-3:]) < 0.8 * sum(losses[:3]), len(stream.about().classes))
""")
    assert out == [f"True {len(classes)}"]


def test_objects_of_coco_voc_and_yolo_files_come_in_batches(tmp_path):
    root = write_yolo(tmp_path / "yolo")
    (root / "data.yaml").write_text(f"train: images\nnames: [{', '.join(CLASSES)}]\n")
    paths = [str(path) for path in (write_coco(tmp_path / "coco"), write_voc(tmp_path / "voc"), root)]
    out = run(f"""
from jaxvision.data import objects, order, placement, streams, target
for path in {paths!r}:
    rows = target.objects(8)
    stream = streams.evaluation(lambda: objects.open(path), placer=placement.letterbox(64), batch_size=4, target=rows)
    (batch,) = stream.batches(0)
    print(int(batch.target.valid.sum()), sorted(batch.index.tolist()))
""")
    assert out == ["6 [0, 1, 2, 3]"] * 3


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("tfds.source('cifar10', 'train')", "TensorFlow"),
        ("tfds.objects_source('voc/2007', 'train')", "TensorFlow"),
        ("next(tf_data_stream().batches(0))", "TensorFlow"),
    ],
)
def test_what_needs_tensorflow_names_the_extra(call, what):
    out = run(f"""
import numpy as np
from jaxvision.data import arrays, order, placement, readers, streams, tfds
from jaxvision.errors import DataError
def tf_data_stream():
    return streams.training(lambda: arrays.source(np.zeros((9, 2, 2), np.uint8), np.arange(9)), order=order.shuffled(0),
                            placer=placement.keep(2), batch_size=4, reader=readers.tf_data())
try:
    {call}
except DataError as error:
    print(error)
""")
    assert out == [f"this needs {what}, which is not installed: pip install 'jaxvision[tfds]'"]
