import math

import numpy as np
import pytest

from jaxvision.draw.curves import curves

ROWS = [
    {"step": 100, "loss": 2.0, "accuracy": 0.3, "gradient_norm": 1.5, "learning_rate": 1e-3, "epoch": 0.5},
    {"step": 200, "loss": 1.0, "accuracy": 0.6, "gradient_norm": 0.5, "learning_rate": 5e-4, "epoch": 1.0},
    {"step": 200, "test/accuracy": 0.55, "test/log_loss": 1.1, "test/recall/cat": 0.4, "test/recall_micro": 0.55},
    {"step": 300, "loss": 0.5, "accuracy": 0.7, "gradient_norm": 0.4, "learning_rate": 0.0, "epoch": 1.5},
    {"step": 400, "test/accuracy": 0.5, "test/log_loss": 0.9, "test/recall/cat": 0.9, "test/recall_micro": 0.5},
]


def panels(figure):
    return {axes.get_title("left"): axes for axes in figure.axes}


def lines(axes):
    """Label to steps and values, of all but the star."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in axes.lines
        if line.get_label() != "_best"
    }


def stars(axes):
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_label() == "_best"]


def note(axes):
    return axes.texts[0].get_text()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_one_panel_a_quantity_and_the_lines_are_the_rows():
    drawn = panels(curves(ROWS))
    assert list(drawn) == ["Loss", "Accuracy", "Gradient norm", "Learning rate"]
    assert lines(drawn["Loss"]) == {"train": ([100, 200, 300], [2.0, 1.0, 0.5]), "test": ([200, 400], [1.1, 0.9])}
    assert lines(drawn["Accuracy"]) == {
        "train": ([100, 200, 300], [0.3, 0.6, 0.7]),
        "test": ([200, 400], [0.55, 0.5]),
    }
    assert lines(drawn["Gradient norm"]) == {"train": ([100, 200, 300], [1.5, 0.5, 0.4])}


def test_the_best_point_of_the_evaluation_is_marked():
    drawn = panels(curves(ROWS))
    assert stars(drawn["Accuracy"]) == [(200, 0.55)]
    assert stars(drawn["Loss"]) == [(400, 0.9)]
    assert note(drawn["Loss"]) == "test log loss: best 0.9 at step 400"
    assert stars(drawn["Gradient norm"]) == stars(drawn["Learning rate"]) == []
    assert note(drawn["Accuracy"]) == "best 0.55 at step 200"
    assert note(drawn["Learning rate"]) == "last 0"


@pytest.mark.parametrize(
    ("name", "best"),
    [("mean_iou", 3), ("ap50", 3), ("f1_macro", 3), ("top5_accuracy", 3), ("map", 3), ("psnr", 3), ("box_ap_75", 3)]
    + [("box_loss", 1), ("calibration_error", 1), ("log_loss", 1), ("rmse", 1)]
    + [("apples", None), ("scale", None), ("gradient_norm", None), ("learning_rate", None)],
)
def test_the_name_tells_whether_more_is_better(name, best):
    figure = curves([{"step": value, f"test/{name}": value} for value in (2, 3, 1)])
    assert stars(figure.axes[0]) == ([] if best is None else [(best, best)])


@pytest.mark.parametrize(
    ("name", "title"),
    [("f1_macro", "F1 (macro)"), ("top5_accuracy", "Top-5 accuracy"), ("mean_iou", "Mean IoU"), ("ap50", "AP50")]
    + [("loss", "Loss"), ("mask_ap", "Mask AP"), ("été", "Été"), ("cost_$x_{", "Cost $x {")],
)
def test_titles_are_readable(name, title):
    assert list(panels(curves([{"step": 1, f"test/{name}": 1.0}]))) == [title]


def test_a_micro_average_is_drawn_where_it_is_no_accuracy():
    rows = [{"step": 1, "test/accuracy": 0.5, "test/recall_micro": 0.5, "test/precision_micro": 0.4}]
    assert list(panels(curves(rows))) == ["Accuracy", "Precision (micro)"]
    assert list(panels(curves([{"step": 1, "test/recall_micro": 0.5}]))) == ["Recall (micro)"]


def test_a_single_point_is_visible():
    axes = curves([{"step": 500, "test/accuracy": 0.88, "rate": 0.1}]).axes
    for panel in axes:
        line = next(line for line in panel.lines if line.get_label() != "_best")
        assert line.get_marker() == "o"
        assert panel.get_xlim()[0] < 500 < panel.get_xlim()[1]
        assert panel.get_ylim()[0] < np.asarray(line.get_ydata())[0] < panel.get_ylim()[1]


def test_several_evaluations_have_a_line_a_star_and_a_note_each():
    rows = [{"step": s, "val/accuracy": s / 10, "shifted/accuracy": 1 / s, "accuracy": 0.5} for s in (2, 4)]
    figure = curves(rows)
    (axes,) = figure.axes
    assert set(lines(axes)) == {"train", "val", "shifted"}
    assert sorted(stars(axes)) == [(2, 0.5), (4, 0.4)]
    assert note(axes).split("\n") == ["val: best 0.4 at step 4", "shifted: best 0.5 at step 2"]
    assert legend(figure) == ["train", "val", "shifted", "best"]
    assert len({line.get_color() for line in axes.lines}) == 3


def test_what_is_not_finite_leaves_a_gap_and_is_counted():
    values = [1.0, None, 0.5, math.nan, math.inf]
    axes = panels(curves([{"step": s, "loss": value} for s, value in enumerate(values)]))["Loss"]
    drawn = lines(axes)["train"][1]
    np.testing.assert_array_equal(drawn, [1.0, math.nan, 0.5, math.nan, math.inf])
    assert note(axes) == "best 0.5 at step 2 · 3 not finite"
    nothing = panels(curves([{"step": 1, "loss": None}]))["Loss"]
    assert note(nothing) == "no finite value · 1 not finite"


def test_what_has_no_finite_value_gets_no_panel_but_is_named():
    figure = curves(
        [{"step": step, "loss": 1.0 / step, "test/AP_large": math.nan, "test/AP": step / 9} for step in (1, 2)]
    )
    assert list(panels(figure)) == ["Loss", "AP"]
    assert figure.get_supxlabel() == "no finite value: AP large"


def test_what_repeats_another_curve_gets_no_panel_but_is_named():
    rows = [
        {"step": s, "test/accuracy": s / 4, "test/balanced_accuracy": s / 4, "test/f1_macro": s / 5} for s in (1, 2)
    ]
    figure = curves(rows)
    assert list(panels(figure)) == ["Accuracy", "F1 (macro)"]
    assert figure.get_supxlabel() == "equal to Accuracy: Balanced accuracy"


def test_what_matters_comes_first_and_rates_always_have_room():
    row = {"loss": 4.0, "box_loss": 2.0, "class_loss": 1.0, "learning_rate": 0.1, "gradient_norm": 3.0}
    row |= {f"test/AP{threshold}": threshold / 100 for threshold in range(50, 100, 5)} | {
        "test/AP_small": 0.0,
        "test/AP": 0.3,
    }
    rows = [{"step": step, **{name: value / step for name, value in row.items()}} for step in (1, 2)]
    titles = list(panels(curves(rows, by="test/AP")))
    assert titles[:2] == ["Loss", "AP"]
    assert titles[-2:] == ["Learning rate", "Gradient norm"]
    assert titles[2:10] == ["AP50", "AP55", "AP60", "AP65", "AP70", "AP75", "Box loss", "Class loss"]
    assert "AP small" in curves(rows).get_supxlabel()  # 0 at every step


def nuclei():
    """The log of a segmenter whose parts are measured as objects."""
    row = {"pixel_loss": 0.5, "loss": 0.5, "learning_rate": 0.1, "gradient_norm": 2.0}
    row |= {f"parts/{name}": 0.1 + 0.01 * i for i, name in enumerate(("AP", "AP50", "AR1", "AR10", "f1", "precision"))}
    row |= {f"parts/dAP_{name}": 0.3 for name in ("classification", "localisation", "both", "missed")}
    row |= {"parts/mask_AP": 0.2, "parts/mask_AP50": 0.25, "parts/mask_AP75": 0.15, "parts/mask_AR1": 0.11}
    row |= {"test/pixel_accuracy": 0.9, "test/mIoU": 0.7, "test/Dice": 0.8, "test/boundary_F1": 0.6}
    row |= {"test/Dice/background": 0.95, "test/Dice/nucleus": 0.75}
    return [{"step": step, **{name: value * step for name, value in row.items()}} for step in (1, 2)]


def test_the_metric_of_a_class_that_chooses_the_best_has_a_panel_and_what_ap_lacks_comes_last():
    figure = curves(nuclei(), by="test/Dice/nucleus")
    drawn = panels(figure)
    assert list(drawn)[:2] == ["Loss", "Dice: nucleus"]
    assert stars(drawn["Dice: nucleus"]) == [(2, 1.5)]
    assert {"Dice", "mIoU", "Boundary F1", "Mask AP", "Mask AP50"} <= set(drawn)
    assert list(drawn)[-2:] == ["Learning rate", "Gradient norm"]
    assert not [title for title in drawn if title.startswith("dAP") or "background" in title]
    assert figure.get_supxlabel().endswith("dAP classification, dAP localisation, dAP both, dAP missed")


def test_what_ap_lacks_is_drawn_where_there_is_room():
    rows = [{"step": s, "loss": 1 / s, "test/AP": s / 4, "test/dAP_missed": s / 5} for s in (1, 2)]
    assert list(panels(curves(rows))) == ["Loss", "AP", "dAP missed"]


def test_a_term_that_is_the_loss_gets_no_panel_but_is_named():
    figure = curves(nuclei())
    assert "Pixel loss" not in panels(figure)
    assert "equal to Loss: Pixel loss" in figure.get_supxlabel()
    rows = nuclei()
    rows[1]["pixel_loss"] = 0.4
    assert "Pixel loss" in panels(curves(rows))


def test_what_chooses_the_best_has_its_panel_where_another_metric_equals_it():
    rows = [{"step": s, "test/AP": s / 4, "test/AP/nucleus": s / 4} for s in (1, 2)]
    figure = curves(rows, by="test/AP/nucleus")
    assert list(panels(figure)) == ["AP: nucleus"]
    assert figure.get_supxlabel() == "equal to AP: nucleus: AP"


def test_a_metric_that_never_changed_has_no_best_point():
    axes = panels(curves([{"step": step, "test/AP75": 0.0} for step in (1, 2)]))["AP75"]
    assert stars(axes) == []
    assert note(axes) == "0 at every step"


@pytest.mark.parametrize("count", range(1, 13))
def test_a_page_has_no_gap_where_one_of_three_or_four_columns_leaves_none(count):
    figure = curves([{"step": s, **{f"test/q{i}_loss": (i + 1) / s for i in range(count)}} for s in (1, 2)])
    columns = figure.axes[0].get_subplotspec().get_gridspec().ncols
    gaps = -count % columns
    assert len(figure.axes) == count
    assert gaps == min(-count % 3, -count % 4, 0 if count < 3 else 9)


def test_values_over_powers_of_ten_get_a_logarithmic_scale():
    rows = [{"step": s, "loss": 10.0**-s, "accuracy": 10.0**-s, "learning_rate": 10.0**-s} for s in range(4)]
    drawn = panels(curves(rows))
    assert {title: axes.get_yscale() for title, axes in drawn.items()} == {
        "Loss": "log",
        "Accuracy": "linear",
        "Learning rate": "linear",
    }
    assert panels(curves([*rows, {"step": 9, "loss": 0.0}]))["Loss"].get_yscale() == "linear"


def test_numpy_numbers_are_numbers_and_other_values_are_no_curves():
    row = {"step": 1, "loss": np.float32(0.5), "count": np.int64(3), "name": "resnet", "done": True, "list": [1]}
    assert set(panels(curves([row]))) == {"Loss", "Count"}


def test_panels_beyond_the_page_are_named():
    rows = [{"step": 1} | {f"test/quantity_{i}": float(i) for i in range(17)}]
    figure = curves(rows)
    assert len(figure.axes) == 12
    assert figure.get_supxlabel() == "not drawn: " + ", ".join(f"Quantity {i}" for i in range(12, 17))


def test_errors():
    with pytest.raises(ValueError, match="no rows"):
        curves([])
    with pytest.raises(ValueError, match="row 1 has no step; it has loss"):
        curves([{"step": 1, "loss": 2.0}, {"loss": 1.0}])
    with pytest.raises(ValueError, match="2 rows, none with a metric"):
        curves([{"step": 1}, {"step": 2, "test/recall/cat": 0.5}])
