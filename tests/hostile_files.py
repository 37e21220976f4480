"""Data files that were made to do harm; each is a function of a folder that writes one there and uses it. Not a test itself.

python hostile_files.py FOLDER uses each in a process of its own, with little memory and time, and prints what came of it.
"""

import gzip
import io
import json
import os
import resource
import signal
import struct
import sys
import time
import zipfile
import zlib
from pathlib import Path

import detection_files
import map_files
import numpy as np
from PIL import Image

from jaxvision.data import arrays, folder, idx, maps, media, objects, placement
from jaxvision.data.decode import decode
from jaxvision.formats import check
from jaxvision.formats.image_file import BadImage

HUGE = 10**12
MEMORY = 1_000_000_000
"""Bytes of address space that a file may take beside what the libraries have."""
SECONDS = 20
CASES = {}
CLASSES = "--classes=cat,dog,owl"


def case(function):
    """A file to use."""
    CASES[function.__name__] = function
    return function


def checked(path, *flags):
    """The status of the check of a dataset."""
    return check.main([str(path), *flags])


def read_all(source):
    """The faults of all examples of a source; raises the first as training would."""
    for example in source.read(np.arange(source.length)):
        if example.fault is not None:
            raise BadImage(example.fault)
        decode(example.image, placement.letterbox(8))


def predicted(path, **options):
    """Reads a file as predict does; raises what it says of it."""
    pictures = media.pictures(media.files([path]), **options)
    for each in media.decoded(pictures, lambda data: decode(data, placement.letterbox(8)).canvas, threads=1):
        if each.canvas is None:
            raise BadImage(f"{each.file}: {each.error}")


def small_png():
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, "PNG")
    return file.getvalue()


# -- pipes and devices, in every place of a file


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    return path


def device(path):
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")
    return path


def endless(what, make):
    """The functions that put a pipe or a device in the place of a file."""

    def in_coco(here):
        file = detection_files.write_coco(here)
        make(here / "small" / "000.png")
        return file

    def in_voc(here, where):
        year = detection_files.write_voc(here)
        make(year / where)
        return here

    def in_yolo(here, where):
        detection_files.write_yolo(here)
        make(here / where)
        return here

    def listed(here):
        in_yolo(here, "images/deep/000.png")
        (here / "list.txt").write_text("images/deep/000.png\n")
        (here / "data.yaml").write_text("names: [cat, dog, owl]\ntrain: list.txt\n")
        return here / "data.yaml"

    def in_maps(here):
        map_files.write_map_folder(here)
        make(here / "masks/deep/000.png")
        return here

    def in_panoptic(here):
        file = map_files.write_panoptic(here)
        make(file.with_suffix("") / "000.png")
        return file

    uses = {
        "map_of_a_folder": lambda here: checked(in_maps(here)),
        "map_of_a_source": lambda here: read_all(maps.folder(in_maps(here))),
        "map_of_a_panoptic_file": lambda here: checked(in_panoptic(here)),
        "map_of_a_panoptic_source": lambda here: read_all(maps.panoptic(in_panoptic(here))),
        "image_of_coco": lambda here: checked(in_coco(here)),
        "image_of_a_coco_source": lambda here: read_all(objects.open(in_coco(here))),
        "image_of_voc": lambda here: checked(in_voc(here, "JPEGImages/000.png")),
        "image_of_a_voc_source": lambda here: read_all(objects.open(in_voc(here, "JPEGImages/000.png"), "train")),
        "annotation_of_voc": lambda here: checked(in_voc(here, "Annotations/000.xml")),
        "split_of_voc": lambda here: objects.open(in_voc(here, "ImageSets/Main/train.txt"), "train"),
        "text_of_yolo": lambda here: checked(in_yolo(here, "labels/deep/000.txt"), CLASSES),
        "image_in_a_list": lambda here: read_all(objects.open(listed(here))),
        "json": lambda here: objects.open(make(here / "a.json")),
        "npz": lambda here: arrays.open_npz(make(here / "a.npz")),
        "idx": lambda here: idx.read(make(here / "a-ubyte"), 3),
        "idx_gz": lambda here: idx.read(make(here / "a.gz"), 3),
        "image_to_predict": lambda here: predicted(make(here / "a.png")),
        "video_to_predict": lambda here: predicted(make(here / "a.mp4")),
        "animation_to_predict": lambda here: predicted(make(here / "a.gif"), animated=True),
    }
    return {f"{what}_as_{name}": use for name, use in uses.items()}


CASES |= endless("a_pipe", pipe) | endless("a_device", device)


@case
def a_sparse_image(here):
    (here / "a.png").write_bytes(small_png())
    os.truncate(here / "a.png", 20 * HUGE // 1000)
    predicted(here / "a.png")


@case
def a_playlist_as_video(here):
    (here / "secret.ts").write_bytes(b"secret")
    (here / "a.mp4").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{here}/secret.ts\n#EXT-X-ENDLIST\n"
    )
    predicted(here / "a.mp4")


# -- masks


def masked(here, segmentation, **size):
    content = detection_files.coco_content()
    content["annotations"][0]["segmentation"] = segmentation
    content["images"] = [{**each, **size} for each in content["images"]]
    for each in content["annotations"][1:]:
        each["segmentation"] = [[1, 2, 3, 4, 9, 6]]
    return detection_files.write_coco(here, content)


def with_masks(file):
    source = objects.coco(file, masks=True)
    source.read(np.arange(source.length))


RUNS = {
    "of_another_size": {"size": [200_000, 200_000], "counts": "0"},
    "of_another_size_in_numbers": {"size": [200_000, 200_000], "counts": [0, 40_000_000_000]},
    "below_zero": {"size": [40, 60], "counts": [-5, 2405]},
    "over_the_size": {"size": [40, 60], "counts": [0, HUGE]},
    "over_the_size_as_text": {"size": [40, 60], "counts": "oooooooooo0"},
    "of_lists": {"size": [40, 60], "counts": [[1], [2]]},
    "of_no_text": {"size": [40, 60], "counts": "\U0001f600\x00"},
    "of_a_size_below_zero": {"size": [-40, -60], "counts": [0, 2400]},
    "in_a_far_polygon": [[1e30, 1e30, -1e30, 5, 1, 1e29]],
    "in_a_nan_polygon": [[float("nan"), 1, 2, 3, 4, 5]],
    "in_a_long_polygon": [[float(i % 50) for i in range(1_000_000)]],
    "in_many_polygons": [[1, 2, 3, 4, 5, 6]] * 20_000,
}
for _name, _segmentation in RUNS.items():
    CASES[f"runs_{_name}"] = lambda here, each=_segmentation: checked(masked(here, each))
    CASES[f"runs_{_name}_in_a_source"] = lambda here, each=_segmentation: with_masks(masked(here, each))


@case
def runs_of_an_image_that_large(here):
    side = 200_000
    with_masks(masked(here, {"size": [side, side], "counts": [0, side**2]}, height=side, width=side))


# -- images


def png(width, height, channels=1):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer, rows = zlib.compressobj(1), (1 + width * channels) * height
    data = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(rows >> 20)), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def gif(side, frames):
    start = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\0\0\0\0\0\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return start + frame * frames + b";"


def jpeg(side):
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "JPEG")
    data = bytearray(file.getvalue())
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def webp(side):
    bits = struct.pack("<I", (side - 1) | (side - 1) << 14)
    return b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8L" + struct.pack("<I", 10) + b"\x2f" + bits + b"\0" * 5


def bmp(side):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "BMP")
    data = bytearray(file.getvalue())
    data[18:26] = struct.pack("<ii", side, side)
    return bytes(data)


BOMBS = {
    "narrow.png": lambda: png(1, 170_000_000),
    "wide.png": lambda: png(170_000_000, 1),
    "large.png": lambda: png(8_000, 8_000, 3)[:2_000] + bytes(2_000),
    "larger.jpg": lambda: jpeg(65_500),
    "large.jpg": lambda: jpeg(13_000),
    "large.gif": lambda: gif(13_000, 1),
    "large.webp": lambda: webp(12_000),
    "large.bmp": lambda: bmp(13_000),
    "large.ppm": lambda: b"P6 13000 13000 255\n" + bytes(10),
}
for _name, _write in BOMBS.items():
    CASES[f"bomb_{_name}"] = lambda here, name=_name, write=_write: (
        (here / name).write_bytes(write()),
        predicted(here / name),
    )


@case
def an_animation_without_end(here):
    (here / "a.gif").write_bytes(gif(1000, 100_000))
    predicted(here / "a.gif", animated=True)


# -- arrays


def array(shape, descr="|u1", data=b""):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz(here, images):
    with zipfile.ZipFile(here / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("images.npy", images)
        file.writestr("labels.npy", array((3,), "<i8", bytes(24)))
    arrays.open_npz(here / "a.npz")


ARRAYS = {
    "of_claims": array((HUGE, 8, 8)),
    "below_zero": array((-3, 8, 8)),
    "of_objects": array((3,), "|O", b"cos\nsystem\n."),
    "of_a_deep_header": array("(" * 300 + ")" * 300),
    "of_junk": b"hello",
    "of_a_long_header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 100,
}
for _name, _content in ARRAYS.items():
    CASES[f"npz_{_name}"] = lambda here, each=_content: npz(here, each)


@case
def npz_that_is_a_bomb(here):
    npz(here, array((200, 1000, 1000), data=bytes(200_000_000)))


@case
def npz_without_a_zip(here):
    (here / "a.npz").write_bytes(array((HUGE,)))
    arrays.open_npz(here / "a.npz")


@case
def idx_of_claims(here):
    (here / "a-ubyte").write_bytes(b"\0\0\x08\x03" + struct.pack(">III", *[2**32 - 1] * 3))
    idx.read(here / "a-ubyte", 3)


@case
def idx_that_is_a_bomb(here):
    shape = struct.pack(">III", 200, 1000, 1000)
    (here / "a.gz").write_bytes(gzip.compress(b"\0\0\x08\x03" + shape + bytes(200_000_000), 1))
    idx.read(here / "a.gz", 3)


# -- maps


def mapped(here, data):
    map_files.write_map_folder(here)
    (here / "masks/deep/000.png").write_bytes(data)
    return here


MAPS = {
    "that_is_a_bomb": lambda: png(12_000, 12_000),
    "that_is_large": lambda: png(60_000, 40),
    "cut_off": lambda: small_png()[:60],
    "of_one_frame_too_many": lambda: gif(65_000, 1),
}
for _name, _make in MAPS.items():
    CASES[f"map_{_name}"] = lambda here, each=_make: checked(mapped(here, each()))
    CASES[f"map_{_name}_in_a_source"] = lambda here, each=_make: read_all(maps.folder(mapped(here, each())))


# -- annotations


def coco(here, **lists):
    return detection_files.write_coco(here, {**detection_files.coco_content(), **lists})


def described(here, text):
    (here / "data.yaml").write_text(text)
    return here / "data.yaml"


def annotated(here, text):
    (detection_files.write_voc(here) / "Annotations/000.xml").write_text(text)
    return here


def labelled(here, text):
    (detection_files.write_yolo(here) / "labels/deep/000.txt").write_text(text)
    return here


def laughs(levels=10):
    """Lists of nine of the list before."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def entities():
    lines = ["<!ENTITY a0 'aaaaaaaaaa'>", *(f"<!ENTITY a{i} '{f'&a{i - 1};' * 10}'>" for i in range(1, 10))]
    return f"<!DOCTYPE a [{''.join(lines)}]><annotation>&a9;</annotation>"


def boxes(*values):
    known = {"image_id": 10, "category_id": 3}
    return [{"id": id, **known, "bbox": [each, 1, 2, 3]} for id, each in enumerate(values, 1)]


JSONS = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "of_long_numbers": '{"images": [' + "1" * 10_000 + "]}",
    "cut": '{"images": [',
}
for _name, _text in JSONS.items():
    CASES[f"json_{_name}"] = lambda here, text=_text: ((here / "a.json").write_text(text), checked(here / "a.json"))[1]
COCOS = {
    "with_a_long_value": {"images": [{"id": "x" * 5_000_000, "file_name": 3}], "annotations": []},
    "with_a_long_name": {"images": [{"id": 3, "file_name": "x" * 5_000}], "annotations": []},
    "with_deep_values": {"images": [json.loads("[" * 500 + "]" * 500)], "annotations": []},
    "with_boxes_of_no_number": {"annotations": boxes(float("nan"), float("inf"), 10**300, -(10**30), "5", None, [])},
    "with_huge_ids": {"annotations": [{"id": 10**400, "image_id": 10**400, "category_id": 1, "bbox": [1, 2, 3, 4]}]},
    "with_one_id_for_all": {"images": [{"id": 10, "file_name": f"{i}.png"} for i in range(5_000)], "annotations": []},
    "with_one_name_for_all": {"categories": [{"id": i, "name": "a"} for i in range(20_000)], "annotations": []},
    "with_names_that_steer": {"images": [{"id": 10, "file_name": "a\n\x1b[31mb\u202e.png"}], "annotations": []},
}
for _name, _lists in COCOS.items():
    CASES[f"coco_{_name}"] = lambda here, lists=_lists: checked(coco(here, **lists))
YAMLS = {
    "deep": f"names: {'[' * 1000}{']' * 1000}",
    "of_aliases": laughs() + "names: *a9\n",
    "of_aliases_for_paths": laughs() + "names: [a]\ntrain: *a9\n",
    "within_itself": "names: &a [*a]\n",
    "with_code": "names: !!python/object/apply:os.system ['touch pwned']\n",
    "of_long_numbers": f"names: [a]\nnc: {'1' * 10_000}\n",
    "that_is_long": f"names: [a]\nx: '{'y' * 20_000_000}'\n",
}
for _name, _text in YAMLS.items():
    CASES[f"yaml_{_name}"] = lambda here, text=_text: checked(described(here, text))
XMLS = {
    "of_entities": entities(),
    "deep": f"<annotation>{'<a>' * 100_000}{'</a>' * 100_000}</annotation>",
    "that_is_long": f"<annotation><object><name>{'x' * 10_000_000}</name></object></annotation>",
    "with_a_long_name": f"<annotation><object><name>{'x' * 1_000_000}</name></object></annotation>",
}
for _name, _text in XMLS.items():
    CASES[f"xml_{_name}"] = lambda here, text=_text: checked(annotated(here, text), CLASSES)
TEXTS = {
    "with_a_long_line": "0 " + "0.5 " * 5_000_001,
    "with_a_long_number": "9" * 5_000_000,
    "of_no_numbers": "1e29 .5 .5 .1 .1\nnan .5 .5 .1 .1\ninf .5 .5 .1 .1\n-1 .5 .5 .1 .1\n0 nan .5 .1 .1\n",
}
for _name, _text in TEXTS.items():
    CASES[f"yolo_{_name}"] = lambda here, text=_text: checked(labelled(here, text), CLASSES)


@case
def folder_of_pipes(here):
    (here / "a").mkdir()
    pipe(here / "a" / "x.png")
    folder.source(here)


def used(use, here):
    """What came of it, as JSON data."""
    signal.alarm(SECONDS)
    before = Path("/proc/self/statm").read_text().split()
    limit = int(before[0]) * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    begin, peak = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sys.stdout = sys.stderr = printed = io.StringIO()
    try:
        outcome = use(here)
    except BaseException as error:
        outcome = type(error).__name__
        printed.write(f"{error}\n")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    seconds = time.process_time() - begin
    return {"outcome": outcome, "said": printed.getvalue(), "memory": grown * 1024, "seconds": seconds}


def main(place):
    """Prints a line of JSON for each case; one that ends its process has no line."""
    for name, use in CASES.items():
        here = place / name
        here.mkdir()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            out = sys.stdout
            out.write(json.dumps({"case": name, **used(use, here)}) + "\n")
            out.flush()
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
