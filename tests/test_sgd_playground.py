"""The SGD playground's pure functions: the walk, what is said about it, and how it is drawn."""

import math
import sys
import xml.etree.ElementTree as xml
from itertools import pairwise
from pathlib import Path

import pytest
import torch

gr = pytest.importorskip("gradio", reason="needs gradio: pip install gradio")
sys.path.insert(0, str(Path(__file__).parent.parent / "apps"))
import sgd_playground as app  # noqa: E402

from kit.mechanism.landscapes import LANDSCAPES  # noqa: E402

VALLEY = LANDSCAPES["stretched valley"]
CHOICES = [*((name, "SGD") for name in LANDSCAPES), *(("saddle", optimiser) for optimiser in app.OPTIMISERS)]


def walk(name="stretched valley", optimiser="SGD", lr=0.5, momentum=0.9, start=None, steps=20):
    landscape = LANDSCAPES[name]
    return app.descend(landscape, optimiser, lr, momentum, start or landscape.start, steps)


def said(name="stretched valley", optimiser="SGD", lr=0.5, momentum=0.9, start=None, steps=20) -> tuple[str, str, str]:
    rows = walk(name, optimiser, lr, momentum, start, steps)
    return app.verdict(LANDSCAPES[name], optimiser, lr, momentum, rows)


def test_sgds_update_is_minus_the_rate_times_the_gradient():
    for row in walk(lr=0.5):
        assert (row.update_x, row.update_y) == pytest.approx((-0.5 * row.gradient_x, -0.5 * row.gradient_y))


def test_each_row_starts_where_the_update_before_it_led():
    rows = walk(optimiser="Adam", steps=50)
    assert [row.step for row in rows] == list(range(51))
    for before, after in pairwise(rows):
        assert (after.x, after.y) == pytest.approx((before.x + before.update_x, before.y + before.update_y))


def test_a_walk_of_no_steps_is_its_start():
    (row,) = walk(steps=0, start=(-7.0, 2.0))
    assert row[:4] == (0, -7.0, 2.0, pytest.approx(49 / 20 + 4))


@pytest.mark.parametrize(
    "name, judge",
    [
        ("SGD", lambda p: torch.optim.SGD(p, lr=0.3)),
        ("Momentum", lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8)),
        ("Nesterov", lambda p: torch.optim.SGD(p, lr=0.3, momentum=0.8, nesterov=True)),
        ("AdaGrad", lambda p: torch.optim.Adagrad(p, lr=0.3)),
        ("RMSprop", lambda p: torch.optim.RMSprop(p, lr=0.3)),
        ("Adam", lambda p: torch.optim.Adam(p, lr=0.3, betas=(0.8, 0.99), eps=1e-5)),
        ("AdamW", lambda p: torch.optim.AdamW(p, lr=0.3, betas=(0.8, 0.99), eps=1e-5, weight_decay=0.01)),
    ],
)
def test_every_optimiser_walks_as_torchs_does(name, judge):
    point = torch.tensor(VALLEY.start, dtype=torch.float64, requires_grad=True)
    theirs = judge([point])
    for _ in range(30):
        theirs.zero_grad()
        VALLEY.function(point).backward()
        theirs.step()
    last = walk(optimiser=name, lr=0.3, momentum=0.8, steps=30)[-1]
    assert (last.x, last.y) == pytest.approx(tuple(point.tolist()), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name, optimiser", CHOICES)
def test_every_choice_is_shown_whatever_becomes_of_it(name, optimiser):
    for lr in (0.01, 2.0):
        picture, told, table, steps = app.show(100, name, optimiser, lr, 0.99, *LANDSCAPES[name].start)
        assert 0 < steps <= 100
        assert "nan" not in picture and "inf" not in picture
        svg = xml.fromstring(picture[: picture.index("</svg>") + 6])
        assert len(svg.findall("path[@class='band']")) == app.BANDS
        assert 'role="status"' in told
        assert table.count("<tr>") == steps + 2


def test_the_walk_ends_where_nothing_comes_back_from():
    rows = walk(lr=2.0, steps=300)
    assert len(rows) < 10
    assert app.lost(rows[-1], VALLEY) and not app.lost(rows[-2], VALLEY)
    assert app.lost(rows[0]._replace(x=math.nan), VALLEY)


def test_divergence_is_explained_by_the_bound_on_the_rate():
    kind, headline, why = said(lr=1.3)
    assert (kind, headline) == ("bad", "Diverged after 9 steps.")
    assert why == (
        "The learning rate 1.3 is not below 2 / c = 1, the bound for SGD: the curvature c everywhere is 2."
        " Each step multiplies the distance by 1 − 1.3 × 2 = −1.6."
    )


def test_the_bound_is_told_before_the_walk_diverges_and_not_below_it():
    assert "the bound for SGD" in said(lr=1.05, steps=1)[2]
    assert "bound" not in said(lr=0.95, steps=1)[2]


@pytest.mark.parametrize(
    "optimiser, bound", [("Momentum", "2 (1 + m) / c = 1.5"), ("Nesterov", "2 (1 + m) / ((1 + 2 m) c) = 0.75")]
)
def test_momentum_moves_the_bound(optimiser, bound):
    _, headline, why = said(optimiser=optimiser, lr=1.6, momentum=0.5, steps=300)
    assert headline.startswith("Diverged")
    assert bound in why and "momentum m is 0.5" in why


def test_the_bound_of_a_landscape_that_bends_differently_everywhere_is_that_of_its_start():
    _, headline, why = said("two minima", lr=0.5, steps=50)
    assert headline.startswith("Diverged")
    assert "the curvature c at the start is 26.7" in why


def test_adaptive_optimisers_have_no_such_bound():
    assert app.explain(VALLEY, "Adam", 2.0, 0.9, VALLEY.start) == ""


@pytest.mark.parametrize(
    "name, start, lr, steps, headline",
    [
        ("parabola", (-4.0, 3.0), 0.1, 0, "At the start."),
        ("parabola", (-4.0, 3.0), 0.1, 5, "Going down."),
        ("parabola", (-4.0, 3.0), 0.1, 100, "Arrived at a minimum."),
        ("parabola", (-4.0, 3.0), 1.05, 1, "That step went uphill."),
        ("parabola", (-4.0, 3.0), 1.05, 5, "Off the map."),
        ("saddle", (-1.8, 0.0), 0.05, 200, "Stuck at a saddle."),
        ("saddle", (-1.8, 0.01), 0.05, 200, "Ran away downhill in 80 steps."),
        ("two minima", (-1.6, 1.2), 0.05, 200, "Arrived at a minimum."),
    ],
)
def test_plain_words_say_what_becomes_of_a_walk(name, start, lr, steps, headline):
    assert said(name, start=start, lr=lr, steps=steps)[1] == headline


def test_the_picture_has_its_origin_at_the_lower_left():
    assert app.across(-10, -10, VALLEY) == (0, 1000)
    assert app.across(10, 10, VALLEY) == (1000, 0)


def test_the_table_has_the_newest_step_on_top_and_the_networks_own_names():
    landscape = LANDSCAPES["tiny network"]
    table = app.tabulate(landscape, app.descend(landscape, "SGD", 1.0, 0.0, landscape.start, 2))
    assert "gradient w" in table and "update v" in table
    assert table.index('<th scope="row">2') < table.index('<th scope="row">0')


def test_more_steps_than_the_page_draws_are_not_taken():
    assert app.show(10**9, "parabola", "SGD", 0.01, 0.9, -4.0, 3.0)[-1] == app.MOST_STEPS


def test_the_page_is_built_without_being_started_and_keeps_only_a_number():
    page = app.build()
    kept = [block.value for block in page.blocks.values() if isinstance(block, gr.State)]
    assert kept == [0]
    assert page.analytics_enabled is False
