"""Writes corruptions.npz: what imagecorruptions-imaug and the published code of CIFAR-10-C make of the bundled photographs.

    python -m venv reference && reference/bin/pip install imagecorruptions-imaug==1.1.5 Wand
    git clone https://github.com/hendrycks/robustness
    reference/bin/python tests/golden/make_corruptions.py robustness/ImageNet-C/create_c/make_cifar_c.py

Made with opencv-python 5.0.0, scikit-image 0.26.0, SciPy 1.17.1, Pillow 13.0.0, NumPy 2.4.6. Some pixels of each picture are
kept. The photographs of ice are made (`corruption_draws.ice`). Motion blur and snow of CIFAR-10-C are ImageMagick's (6.9.11,
Debian's libmagickwand-6.q16-6).
"""

import contextlib
import io
import sys
import types
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import imagecorruptions  # noqa: E402
from corruption_draws import NAMES, ice, places, seed_of, shown  # noqa: E402
from imagecorruptions import corruptions  # noqa: E402

COUNTS = {"whole": 24, "crop": 48, "cifar": 24}
SEEDED = ("impulse_noise", "glass_blur")
"""They take their seed as an argument, and NumPy's numbers from it."""


def kept(image: np.ndarray, size: str) -> np.ndarray:
    return np.uint8(image).reshape(-1, 3)[places(size, COUNTS[size], image.shape)]


def imagenet(size: str) -> dict[str, np.ndarray]:
    """Kept pixels by corruption: `severity photograph pixel 3`."""
    corruptions.cv2.imread = lambda path: ice(int(Path(path).stem[-1]))[..., ::-1]
    found = {}
    for name in imagecorruptions.get_corruption_names("all"):
        rows = []
        for severity in range(1, 6):
            for each in NAMES:
                np.random.seed(seed_of(name, severity))
                more = {"seed": seed_of(name, severity)} if name in SEEDED else {}
                with contextlib.redirect_stdout(io.StringIO()):
                    rows.append(kept(imagecorruptions.corrupt(shown(each, size), severity, name, **more), size))
        found[name] = np.reshape(rows, (5, len(NAMES), -1, 3))
    return found


IMPORTS = """
from io import BytesIO
import cv2, numpy as np, skimage as sk
from PIL import Image as PILImage
from scipy.ndimage import map_coordinates, zoom as scizoom
from skimage.filters import gaussian
from wand.image import Image as WandImage
from wand.api import library as wandlibrary
import ctypes
"""


def between(text: str, first: str, last: str) -> str:
    return text[text.index(first) : text.index(last)]


def published(path: Path):
    """The functions of make_cifar_c.py, which is a program: its text up to where it begins to write."""
    text = path.read_text()
    text = between(text, "def disk", "# /////////////// End Distortions")
    text = text.replace("np.float_", "np.float64").replace("multichannel=True", "channel_axis=-1")
    text = text.replace("np.fromstring", "np.frombuffer")
    module = types.ModuleType("make_cifar_c")
    exec(IMPORTS + text, module.__dict__)
    return module


def cifar(path: Path) -> dict[str, np.ndarray]:
    module, found = published(path), {}
    random_noise = module.sk.util.random_noise
    module.cv2.imread = lambda path: ice(int(Path(path).stem[-1]))[..., ::-1]
    for name in imagecorruptions.get_corruption_names("all"):
        rows = []
        for severity in range(1, 6):
            seed = seed_of(name, severity)
            module.sk.util.random_noise = lambda *args, **more: random_noise(*args, rng=seed, **more)  # noqa: B023
            for each in NAMES:
                np.random.seed(seed)
                image = getattr(module, name)(Image.fromarray(shown(each, "cifar")), severity)
                rows.append(kept(np.asarray(image), "cifar"))
        found[name] = np.reshape(rows, (5, len(NAMES), -1, 3))
    return found


if __name__ == "__main__":
    arrays = {f"{size}/{name}": rows for size in ("whole", "crop") for name, rows in imagenet(size).items()}
    arrays |= {f"cifar/{name}": rows for name, rows in cifar(Path(sys.argv[1])).items()}
    np.savez_compressed(HERE / "corruptions.npz", **arrays)
