"""The categories of COCO: 80 of the ids 1 to 90, as its annotation files name them."""

# fmt: off
_BY_ID = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "", "backpack", "umbrella", "", "", "handbag", "tie", "suitcase",
    "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana",
    "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "", "dining table", "", "", "toilet", "", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "", "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)
# fmt: on
"""Names by id less one; empty where there is no such category."""

IDS = tuple(number for number, name in enumerate(_BY_ID, 1) if name)
"""Ids of the categories in order: what label 0, 1, ... of most detectors stands for."""
CLASSES = tuple(name for name in _BY_ID if name)
BY_ID = tuple(name or f"(id {number})" for number, name in enumerate(_BY_ID, 1))
"""Names for networks whose labels are the ids less one, all 90."""
UNUSED = frozenset(("(id 0)", *BY_ID)) - frozenset(CLASSES)
"""Names of the ids that no category has."""

# fmt: off
_STUFF = {
    92: "banner", 93: "blanket", 95: "bridge", 100: "cardboard", 107: "counter", 109: "curtain", 112: "door-stuff",
    118: "floor-wood", 119: "flower", 122: "fruit", 125: "gravel", 128: "house", 130: "light", 133: "mirror-stuff",
    138: "net", 141: "pillow", 144: "platform", 145: "playingfield", 147: "railroad", 148: "river", 149: "road",
    151: "roof", 154: "sand", 155: "sea", 156: "shelf", 159: "snow", 161: "stairs", 166: "tent", 168: "towel",
    171: "wall-brick", 175: "wall-stone", 176: "wall-tile", 177: "wall-wood", 178: "water-other", 180: "window-blind",
    181: "window-other", 184: "tree-merged", 185: "fence-merged", 186: "ceiling-merged", 187: "sky-other-merged",
    188: "cabinet-merged", 189: "table-merged", 190: "floor-other-merged", 191: "pavement-merged",
    192: "mountain-merged", 193: "grass-merged", 194: "dirt-merged", 195: "paper-merged", 196: "food-other-merged",
    197: "building-other-merged", 198: "rock-merged", 199: "wall-other-merged", 200: "rug-merged",
}
# fmt: on
PANOPTIC_IDS = (*IDS, *_STUFF)
"""Ids of the 133 categories of COCO panoptic in order: 80 things, and 53 of stuff."""
PANOPTIC_CLASSES = (*CLASSES, *_STUFF.values())
THINGS = (True,) * len(IDS) + (False,) * len(_STUFF)
"""Which of them are things."""
