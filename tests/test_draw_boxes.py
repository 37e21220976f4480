"""Labels of boxes: all of each is inside the image, and none hides another where there is room."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxvision.draw.boxes import draw_box, with_boxes

BLACK = np.zeros((200, 240, 3), np.uint8)


@pytest.mark.parametrize("corner", [(60, 50), (60, 0), (60, 3), (100, 50), (110, 0), (0, 0)])
def test_a_label_in_a_figure_lies_in_the_image(corner):
    figure = Figure(figsize=(3, 2), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.1, 0.1, 0.8, 0.8))
    axes.imshow(np.zeros((80, 120, 3), np.uint8), aspect="auto")
    x, y = corner
    draw_box(axes, np.array([x, y, min(x + 30, 120), y + 25], float), "square 0.98", "#0000ff", size=6)
    canvas.draw()
    (text,) = axes.texts
    label, image = text.get_window_extent(), axes.get_window_extent()
    assert image.x0 - 1 <= label.x0 <= label.x1 <= image.x1 + 1
    assert image.y0 - 1 <= label.y0 <= label.y1 <= image.y1 + 1


def coloured(picture, colour):
    return int((np.asarray(picture) == colour).all(-1).sum())


def test_labels_in_pixels_do_not_hide_each_other():
    boxes = np.array([[20, 60, 150, 150], [22, 61, 148, 149], [21, 59, 151, 151]], float)
    texts, colours = ("cup 0.96", "bowl 0.80", "vase 0.70"), ("#0000ff", "#ff0000", "#00ff00")
    together = with_boxes(BLACK, boxes, texts, colours)
    for box, text, colour, rgb in zip(boxes, texts, colours, ((0, 0, 255), (255, 0, 0), (0, 255, 0)), strict=True):
        alone = coloured(with_boxes(BLACK, box[None], [text], [colour]), rgb)
        line = coloured(with_boxes(BLACK, box[None], [""], [colour]), rgb)
        assert coloured(together, rgb) > alone - line + line // 3  # all of the label; lines hide each other in part
