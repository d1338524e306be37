"""Plots: the contents of each figure, read back from its axes and pixels."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from sklearn.decomposition import PCA

from kit.mechanism import plots
from kit.mechanism.gradient import gradient_descent
from kit.mechanism.landscapes import LANDSCAPES, grid
from kit.mechanism.plots import curves, feature_spaces, histograms, images, paths

bowl, valley, saddle, *_ = (landscape.function for landscape in LANDSCAPES.values())


def pixels(figure):
    """The picture as numbers from 0 to 1: (h, w, 3)."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3] / 255


def share_of(figure, colour):
    """The share of the picture's pixels that have this colour, nearly."""
    return (np.abs(pixels(figure) - to_rgb(colour)).max(axis=2) < 0.1).mean()


def test_curves_holds_one_line_for_each_name_with_its_values():
    figure = curves({"train": [3, 2, 1], "valid": [3.0, 2.5, 2.4, 2.6]}, "epoch", "loss")
    (axes,) = figure.axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == {
        "train": [3, 2, 1],
        "valid": [3.0, 2.5, 2.4, 2.6],
    }
    assert list(axes.lines[1].get_xdata()) == [0, 1, 2, 3]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("epoch", "loss", "linear")
    assert axes.yaxis.get_gridlines()[0].get_visible()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "valid"]
    assert share_of(figure, "C0") > 0.001 and share_of(figure, "C1") > 0.001


def test_curves_takes_tensors_and_powers_of_ten():
    figure = curves({"height": torch.tensor([1.0, 0.1, 0.01])}, "step", "height", log=True)
    assert figure.axes[0].get_yscale() == "log"
    assert pixels(figure).min() < 1


def test_histograms_share_one_range_and_count_every_value():
    figure = histograms({"narrow": torch.rand(50, 20), "wide": 10 * torch.rand(100)}, bins=10)
    assert [axes.get_title() for axes in figure.axes] == ["narrow", "wide"]
    for axes, count in zip(figure.axes, (1000, 100), strict=True):
        assert sum(bar.get_height() for bar in axes.patches) == count
    edges = [(axes.patches[0].get_x(), axes.patches[-1].get_x()) for axes in figure.axes]
    assert edges[0] == pytest.approx(edges[1])
    assert figure.axes[0].patches[0].get_height() > 900
    assert share_of(figure, "C0") > 0.05


def test_a_histogram_has_forty_bars_unless_another_number_is_given():
    (axes,) = histograms({"some": torch.rand(50)}).axes
    assert len(axes.patches) == 40


def test_histograms_leave_out_values_that_are_not_finite():
    (axes,) = histograms({"diverged": torch.tensor([1.0, 2.0, torch.nan, torch.inf])}).axes
    assert sum(bar.get_height() for bar in axes.patches) == 2


def test_paths_holds_the_walks_in_their_order_over_contours():
    walks = {"slow": [(-7, 2), (-6, 1), (-5, 0.5)], "fast": gradient_descent(valley, torch.ones(2).double(), 0.5, 3)}
    figure = paths(valley, walks, (-8, 8, -4, 4))
    (axes,) = figure.axes
    drawn = {line.get_label(): line for line in axes.lines}
    assert list(zip(*drawn["slow"].get_data(), strict=True)) == [(-7, 2), (-6, 1), (-5, 0.5)]
    assert len(drawn["fast"].get_xdata()) == 4
    assert (axes.get_xlim(), axes.get_ylim()) == ((-8, 8), (-4, 4))
    assert share_of(figure, "C0") > 0.0005 and share_of(figure, "C1") > 0.0005


def test_a_circle_is_at_the_start_of_a_walk_and_a_star_at_its_end_in_its_colour():
    (axes,) = paths(valley, {"slow": [(-7, 2), (-6, 1), (-5, 0.5)], "fast": [(1, 1), (0, 0)]}, (-8, 8, -4, 4)).axes
    for (line, start, end), ends in zip(
        (axes.lines[:3], axes.lines[3:]), ([(-7, 2), (-5, 0.5)], [(1, 1), (0, 0)]), strict=True
    ):
        assert [(one.get_marker(), one.get_xydata().tolist()) for one in (start, end)] == [
            ("o", [list(ends[0])]),
            ("*", [list(ends[1])]),
        ]
        assert line.get_color() == start.get_color() == end.get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["slow", "fast"]
    assert axes.lines[0].get_color() != axes.lines[3].get_color()
    assert paths(valley, {}, (-8, 8, -4, 4)).axes[0].get_legend() is None


def test_the_contours_are_where_the_function_has_their_value():
    (axes,) = paths(valley, {}, (-8, 4, -4, 2)).axes
    (contours,) = axes.collections
    heights = valley(grid((-8, 4, -4, 2), 80)).flatten()
    below = [(heights <= level).double().mean().item() for level in contours.levels]
    assert below == pytest.approx([place / 23 for place in range(1, 23)], abs=0.01)  # as many points in each band
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y")
    assert (axes.dataLim.x0, axes.dataLim.x1, axes.dataLim.y0, axes.dataLim.y1) == pytest.approx((-8, 4, -4, 2))
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        on_line = torch.tensor(path.vertices).T
        assert (valley(on_line) - level).abs().max() < 0.01


def test_a_path_that_diverges_is_cut():
    runaway = [(1.0, 1.0), (-1e300, 1e300), (float("inf"), 0.0), (0.0, 0.0)]
    figure = paths(saddle, {"runaway": runaway}, (-2, 2, -2, 2))
    (axes,) = figure.axes
    assert len(axes.lines[0].get_xdata()) == 2
    assert axes.get_xlim() == (-2, 2)
    assert share_of(figure, "white") > 0.5


def test_images_shows_grey_pictures_row_by_row_with_titles():
    pictures = torch.arange(12.0).reshape(3, 2, 2) / 12
    figure = images(pictures, titles=[7, "b", "c"], columns=2)
    assert [axes.get_title() for axes in figure.axes] == ["7", "b", "c"]
    for axes, picture in zip(figure.axes, pictures, strict=True):
        assert np.array_equal(axes.images[0].get_array(), picture)
    corners = [axes.get_position() for axes in figure.axes]
    pixels(figure)
    assert corners[0].y0 == corners[1].y0 > corners[2].y0


def test_a_row_has_eight_images_and_all_have_the_same_scale_of_greys():
    figure = images(torch.rand(9, 2, 2) / 2)
    assert [axes.get_subplotspec().rowspan.start for axes in figure.axes] == [0] * 8 + [1]
    assert all(axes.images[0].get_clim() == (0, 1) and axes.images[0].get_cmap().name == "gray" for axes in figure.axes)
    assert not any(axes.axison or axes.get_title() for axes in figure.axes)


def test_images_have_their_colours():
    red_and_blue = torch.zeros(2, 3, 4, 4)
    red_and_blue[0, 0] = 1
    red_and_blue[1, 2] = 1
    figure = images(red_and_blue)
    assert share_of(figure, (1, 0, 0)) > 0.3 and share_of(figure, (0, 0, 1)) > 0.3
    assert share_of(figure, (0, 1, 0)) == 0


def test_bytes_are_divided_and_weights_are_scaled_for_each_image():
    assert np.allclose(images(torch.full((1, 2, 2), 51, dtype=torch.uint8)).axes[0].images[0].get_array(), 0.2)
    weights = torch.tensor([[[-1.0, 1.0]], [[-10.0, 10.0]]])
    for axes in images(weights).axes:
        assert axes.images[0].get_array().tolist() == [[0.0, 1.0]]
    assert images(torch.full((1, 2, 2), 5.0)).axes[0].images[0].get_array().tolist() == [[0.0, 0.0]] * 2


def two_classes():
    """Features (60, 5) of different spreads, around one centre for each class, and labels 1 and 3."""
    labels = 1 + 2 * (torch.arange(60) % 2)
    x = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) + 4 * labels[:, None]
    return x * torch.tensor([1.0, 10, 0.1, 3, 0.5]) + torch.tensor([0.0, 50, -1, 2, 4]), labels


def test_every_panel_has_the_axes_and_the_circles_of_the_first():
    x, labels = two_classes()
    figure = feature_spaces({"before": x, "moved": x + 5, "shrunk": 0.1 * x}, labels)
    assert [axes.get_title() for axes in figure.axes] == ["before", "moved", "shrunk"]
    assert len({axes.get_xlim() for axes in figure.axes}) == len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        assert [len(points.get_offsets()) for points in axes.collections] == [30, 30]
    rings = [[line.get_xydata().tolist() for line in axes.lines] for axes in figure.axes]
    assert rings[0] == rings[1] == rings[2]
    first = figure.axes[0].collections[0].get_offsets().mean(0)
    assert rings[0][0][0] == pytest.approx(first)


def test_the_first_axis_is_the_first_principal_component():
    x, labels = two_classes()
    (axes,) = feature_spaces({"before": x}, labels).axes
    second, first = torch.linalg.eigvalsh(x.T.cov())[-2:] / x.var(0).sum()
    assert axes.get_xlabel() == f"first component ({first:.0%} of the variance)"
    assert axes.get_ylabel() == f"second component ({second:.0%})"


def test_the_points_are_the_first_two_principal_components_and_have_the_colour_of_their_class():
    x, labels = two_classes()
    (axes,) = feature_spaces({"before": x}, labels).axes
    expected = PCA(2).fit_transform(x.double())
    for place, (label, points) in enumerate(zip((1, 3), axes.collections, strict=True)):
        found = points.get_offsets()
        signs = np.sign(found[0] / expected[labels == label][0])
        np.testing.assert_allclose(found, signs * expected[labels == label], atol=1e-6)
        assert to_rgb(points.get_facecolor()[0]) == to_rgb(f"C{label}")
        black, ring = axes.lines[2 * place : 2 * place + 2]
        np.testing.assert_allclose([black.get_xydata()[0], ring.get_xydata()[0]], [found.mean(0)] * 2, atol=1e-6)
        assert (black.get_markeredgecolor(), ring.get_markeredgecolor()) == ("black", f"C{label}")
        assert black.get_markerfacecolor() == ring.get_markerfacecolor() == "none"
    legend = axes.get_legend()
    assert [text.get_text() for text in (legend.get_title(), *legend.get_texts())] == ["class", "1", "3"]
    assert axes.get_aspect() == 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: images(torch.zeros(2, 4, 5, 5)), r"shape \(2, 4, 5, 5\): expected \(n, h, w\) or \(n, 3, h, w\)"),
        (lambda: images(torch.zeros(0, 5, 5)), r"shape \(0, 5, 5\)"),
        (lambda: paths(bowl, {}, (1, -1, -1, 1)), r"bounds are \(1, -1, -1, 1\): expected left < right"),
        (lambda: paths(bowl, {}, (1, 1, -1, 1)), r"bounds are \(1, 1, -1, 1\)"),
        (lambda: paths(bowl, {}, (-1, 1, 1, 1)), r"bounds are \(-1, 1, 1, 1\)"),
    ],
)
def test_invalid_arguments_are_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_drawing_does_not_import_pyplot():
    code = (
        "import sys, torch; from kit.mechanism.plots import curves; curves({'a': [1, 2]}, 'x', 'y');"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_the_command_draws_the_pictures_of_the_ladder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["plots", "--out", str(tmp_path)])
    plots.main()
    names = ["losses", "optimizers", "initializers", "filters", "feature_maps", "segmentation", "linear_probe"]
    assert capsys.readouterr().out.split() == [str(tmp_path / f"{name}.png") for name in names]
    for name in names:
        assert matplotlib.image.imread(tmp_path / f"{name}.png").std() > 0.05
