"""Writes the same small detection dataset as COCO JSON, as a VOC folder and as YOLO text."""

import json

from data_encoding import encoded, smooth

CLASSES = ("cat", "dog", "owl")
SIZES = ((40, 60), (64, 64), (50, 30), (32, 48))
"""Heights and widths."""
OBJECTS = {
    0: [(0, (5, 6, 25, 36), False), (2, (0, 0, 60, 40), True)],
    1: [(1, (10, 20, 42, 28), False)],
    2: [],
    3: [(2, (1, 2, 3, 32), False), (1, (8, 8, 24, 24), False), (0, (40, 0, 48, 8), False)],
}
"""By image: label, x0 y0 x1 y1, whether to ignore."""


def name(number):
    return f"{number:03d}.png"


def write_images(folder):
    folder.mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES):
        (folder / name(number)).write_bytes(encoded(smooth(height, width, seed=number)))
    return folder


def coco_content():
    """Ids are neither in order nor without gaps; labels follow the order of the category ids."""
    categories = [{"id": id, "name": CLASSES[label]} for label, id in ((2, 90), (0, 3), (1, 17))]
    images = [
        {"id": 10 + 7 * number, "file_name": name(number), "height": height, "width": width}
        for number, (height, width) in reversed(list(enumerate(SIZES)))
    ]
    annotations = [
        {
            "image_id": 10 + 7 * number,
            "category_id": (3, 17, 90)[label],
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "iscrowd": int(ignore),
            "area": 0.5 * (x1 - x0) * (y1 - y0),
        }
        for number, objects in OBJECTS.items()
        for label, (x0, y0, x1, y1), ignore in objects
    ]
    numbered = [{"id": id, **each} for id, each in enumerate(annotations, start=100)]
    return {"images": images, "annotations": numbered, "categories": categories}


def masked_content():
    """The same, each object with its box as a polygon."""
    content = coco_content()
    for each in content["annotations"]:
        x, y, width, height = each["bbox"]
        each["segmentation"] = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        each["area"] = width * height
    return content


def write_coco(root, content=None):
    """`root/small.json`, images in `root/small`."""
    write_images(root / "small")
    path = root / "small.json"
    path.write_text(json.dumps(coco_content() if content is None else content))
    return path


def voc_object(label, box, ignore):
    x0, y0, x1, y1 = box
    corners = f"<xmin>{x0 + 1}</xmin><ymin>{y0 + 1}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>"
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    difficult = f"<difficult>{int(ignore)}</difficult>" if ignore else ""
    return f"<object><name>{CLASSES[label]}</name>{difficult}{part}<bndbox>{corners}</bndbox></object>"


def write_voc(root):
    """`root/VOCdevkit/VOC2007`; split `train` has all, the last first, `val` the first."""
    year = root / "VOCdevkit" / "VOC2007"
    write_images(year / "JPEGImages")
    (year / "Annotations").mkdir()
    (year / "ImageSets" / "Main").mkdir(parents=True)
    for number, (height, width) in enumerate(SIZES):
        size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        objects = "".join(voc_object(*each) for each in OBJECTS[number])
        text = f"<annotation><filename>x.jpg</filename>{size}{objects}</annotation>"
        (year / "Annotations" / f"{number:03d}.xml").write_text(text)
    (year / "ImageSets" / "Main" / "train.txt").write_text("003\n002\n001\n000\n")
    (year / "ImageSets" / "Main" / "val.txt").write_text("000\n")
    (year / "ImageSets" / "Main" / "cat_train.txt").write_text("000  1\n001 -1\n")
    return year


def write_yolo(root):
    """`root/images/deep` and `root/labels/deep`; no text for the image without objects."""
    write_images(root / "images" / "deep")
    (root / "labels" / "deep").mkdir(parents=True)
    for number, objects in OBJECTS.items():
        if objects:
            height, width = SIZES[number]
            lines = [
                f"{label} {(x0 + x1) / 2 / width} {(y0 + y1) / 2 / height} {(x1 - x0) / width} {(y1 - y0) / height}"
                for label, (x0, y0, x1, y1), _ in objects
            ]
            (root / "labels" / "deep" / f"{number:03d}.txt").write_text("\n".join(lines) + "\n")
    return root


def with_boxes(root, boxes):
    """A COCO file with other boxes: `(annotation, (height, width)) -> bbox`."""
    content = coco_content()
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for each in content["annotations"]:
        each["bbox"] = boxes(each["bbox"], sizes[each["image_id"]])
        each["iscrowd"] = 0
    return write_coco(root, content)


def corners(box, size):
    x, y, width, height = box
    return [x, y, x + width, y + height]


def fractions(box, size):
    return [side / extent for side, extent in zip(box, (size[1], size[0]) * 2, strict=True)]


def yolo_corners(root):
    write_yolo(root)
    for number, (height, width) in enumerate(SIZES):
        lines = [
            f"{label} {x0 / width} {y0 / height} {x1 / width} {y1 / height}"
            for label, (x0, y0, x1, y1), _ in OBJECTS[number]
        ]
        (root / "labels/deep" / f"{number:03d}.txt").write_text("\n".join(lines))
    return root
