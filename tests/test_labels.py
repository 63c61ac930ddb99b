"""Labels that keep clear of each other: placed by hand, and on charts of many runs."""

from __future__ import annotations

import itertools

import pytest

from dashboard import words
from dashboard.charts import base, layers
from dashboard.components import strip

ROOM = (300.0, 200.0)


def boxes(
    points: list[tuple[float, float]],
    sizes: list[tuple[float, float]],
    places: list[base.Placed | None],
    stretch: float = 1.0,
) -> list[base.Rectangle]:
    """Of the labels that are drawn, in a chart that is `stretch` times as wide."""
    found = []
    for (x, y), (width, height), place in zip(points, sizes, places, strict=True):
        if place:
            left = x * stretch + place.right - width / 2
            top = y + place.down - height / 2
            found.append((left, top, left + width, top + height))
    return found


def overlap(a: base.Rectangle, b: base.Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_a_lone_label_stands_beside_its_point() -> None:
    (place,) = base.place_labels([(100, 100)], [(40, 18)], ROOM)
    assert place == base.Placed(right=base.MARK / 2 + 2 + 20, down=0, leader=False)


def test_a_label_without_room_at_the_right_stands_above() -> None:
    (place,) = base.place_labels([(290, 100)], [(16, 18)], ROOM)
    assert place is not None
    assert place.right == 0
    assert place.down < 0


def test_a_label_keeps_off_what_is_taken() -> None:
    (place,) = base.place_labels([(100, 100)], [(40, 18)], ROOM, [(105, 80, 300, 120)])
    assert place is not None
    assert place.right < 0


def test_labels_of_one_spot_all_find_a_place_and_some_need_a_line() -> None:
    points = [(150.0, 100.0)] * 6
    sizes = [(60.0, 18.0)] * 6
    places = base.place_labels(points, sizes, ROOM)
    drawn = boxes(points, sizes, places)
    assert len(drawn) == 6
    assert not any(overlap(a, b) for a, b in itertools.combinations(drawn, 2))
    assert any(place and place.leader for place in places)


def test_a_label_without_any_place_is_left_out() -> None:
    assert base.place_labels([(10, 10)], [(400, 18)], ROOM) == [None]


@pytest.mark.parametrize("stretch", [1.0, 1.7, 4.0])
def test_places_stay_free_in_wider_charts(stretch: float) -> None:
    points = [(40.0 + 11 * i, 60.0 + 7 * (i % 4)) for i in range(12)]
    sizes = [(20.0, 18.0)] * len(points)
    places = base.place_labels(points, sizes, ROOM)
    drawn = boxes(points, sizes, places, stretch)
    assert not any(overlap(a, b) for a, b in itertools.combinations(drawn, 2))


def test_labels_on_one_line_are_spread() -> None:
    assert base.spread([10, 50], 16, 0, 100) == [10, 50]
    assert base.spread([10, 12, 12], 16, 0, 100) == [10, 26, 42]
    assert base.spread([99, 98], 16, 0, 100) == [100, 84]
    assert base.spread([0, 0, 0], 80, 0, 100) == [0, 50, 100]  # no room for 80 between them


@pytest.mark.parametrize(
    ("name", "width", "short"),
    [
        ("conv1.weight", 10, "conv1"),
        ("encoder.layers.encoder_layer_3.mlp.0.weight", 22, "encoder…layer_3.mlp.0"),
        ("layer2.0.downsample.0.weight", 18, "layer2.0…nsample.0"),
        ("encoder.layers.encoder_layer_10.self_attention.out_proj", 24, "layer_10…out_proj"),
        ("encoder.layers.encoder_layer_10.self_attention.in_proj_weight", 17, "layer_10…in_proj"),
        ("encoder.layers.encoder_layer_10.self_attention.in_proj_weight", 14, "10…in_proj"),
    ],
)
def test_a_long_name_is_cut_in_the_middle(name: str, width: int, short: str) -> None:
    assert words.layer_name(name, width) == short
    assert words.layer_name(name) == name.removesuffix(".weight")


def test_cut_names_of_a_transformer_stay_apart() -> None:
    parts = ("self_attention.in_proj_weight", "self_attention.out_proj", "mlp.0", "mlp.3")
    names = [f"encoder.layers.encoder_layer_{i}.{part}" for i in range(12) for part in parts]
    for width in (strip.NAME, layers.NAME, 20, 24):
        cut = [words.layer_name(name, width) for name in names]
        assert len(set(cut)) == len(names)
        assert max(map(len, cut)) <= width
