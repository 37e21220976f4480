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
