"""The recipe is the state: a link reopens it, undo steps back, and hostile addresses are
refused.
"""

from __future__ import annotations

import ast
import base64
import json
import tomllib
import zlib
from functools import cache
from pathlib import Path

import pytest
from pages import opened
from streamlit.testing.v1 import AppTest

from dashboard import colours, state
from dashboard.charts import base
from dashboard.charts.sensitivity import CIVIDIS
from pruning.errors import RecipeError
from pruning.recipe import Recipe

CONFIG = Path(__file__).parents[1] / "dashboard" / ".streamlit" / "config.toml"
GROUNDS = ("backgroundColor", "secondaryBackgroundColor")


def script() -> None:
    """A page that shows the state and nothing else."""
    import streamlit as st

    from dashboard import state

    state.take_address()
    for text in state.warnings():
        st.warning(text)
    st.json(state.recipe().to_dict())
    st.text(f"layer {state.layer()} run {state.run_id()} picked {','.join(state.picked())}")
    if st.button("less"):
        state.change(sparsity=0.25)
    if st.button("other"):
        state.change(model="digits-mlp")
    if st.button("wrong"):
        try:
            state.change(sparsity=1.5)
        except Exception as error:
            st.error(str(error))
    for action in (state.undo, state.redo, state.reset):
        st.button(action.__name__, on_click=action)


def open_page(**address: str) -> AppTest:
    page = AppTest.from_function(script)
    for key, value in address.items():
        page.query_params[key] = value
    return page.run()


def press(page: AppTest, label: str) -> AppTest:
    next(button for button in page.button if button.label == label).click()
    page.run()
    return page.run()  # a press in the body of a script shows in the next run


def shown(page: AppTest) -> Recipe:
    return Recipe.from_dict(json.loads(page.json[0].value))


ROUND_TRIPS = [
    Recipe(),
    state.HOME,
    Recipe(
        model="torchvision:resnet18",
        criterion="taylor",
        options={"squared": True},
        granularity="channel",
    ),
    Recipe(
        granularity="channel",
        granularity_options={"pool": "l2"},
        sparsity=0.123456789,
        exclude=("a.weight",),
        seed=2**63 - 1,
    ),
    Recipe(scope="manual", ratios={f"layer{i}.conv.weight": 0.5 for i in range(54)}),
]


@pytest.mark.parametrize("recipe", ROUND_TRIPS, ids=lambda r: r.id)
def test_a_link_carries_the_exact_recipe(recipe):
    assert state.decode(state.encode(recipe)) == recipe


def test_a_link_is_short():
    assert len(state.encode(state.HOME)) < 140
    assert len(state.encode(ROUND_TRIPS[-1])) < 400


def compressed(data: object) -> str:
    return base64.urlsafe_b64encode(zlib.compress(json.dumps(data).encode())).decode().rstrip("=")


HOSTILE = {
    "not base64": "%%%",
    "empty zlib": base64.urlsafe_b64encode(b"junk").decode(),
    "cut off": state.encode(state.HOME)[:10],
    "a list": compressed([1, 2]),
    "a number": compressed(7),
    "unknown field": compressed({"colour": "red"}),
    "ratio out of range": compressed({"sparsity": 1.5}),
    "not a number": compressed({"sparsity": float("nan")}),
    "newer version": compressed({"version": 99}),
    "deep": compressed("[" * 5000)[:7900],
    "a bomb": base64.urlsafe_b64encode(zlib.compress(b" " * 4_000_000, 9)).decode(),
    "too long": "A" * 9000,
    "nested where a name belongs": compressed({"model": {"a": 1}}),
    "unhashable choice": compressed({"options": {"norm": []}}),
    "letters outside ASCII": "Ω" * 20,
}


@pytest.mark.parametrize("link", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_link_is_refused_in_one_sentence(link):
    with pytest.raises(RecipeError) as error:
        state.decode(link)
    message = str(error.value)
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize("name", ["not base64", "ratio out of range", "newer version"])
def test_a_hostile_address_leaves_the_recipe_and_warns(name):
    page = open_page(r=HOSTILE[name])
    assert not page.exception
    assert shown(page) == state.HOME
    assert len(page.warning) == 1 and "cannot be followed" in page.warning[0].value


def test_an_address_reopens_everything():
    recipe = Recipe(model="digits-mlp", sparsity=0.7)
    page = open_page(r=state.encode(recipe), layer="fc1.weight", run="0123456789ab", c="aa,bb,aa")
    assert shown(page) == recipe
    assert page.text[0].value == "layer fc1.weight run 0123456789ab picked aa,bb"
    assert not page.warning


def test_an_opened_link_has_nothing_to_undo():
    page = open_page(r=state.encode(Recipe(sparsity=0.7)))
    assert shown(press(page, "undo")) == Recipe(sparsity=0.7)


def test_hostile_runs_and_picks_are_warned_of():
    page = open_page(run="../../etc/passwd\n", c="good,<img src=x>")
    assert page.text[0].value == "layer None run None picked good"
    assert len(page.warning) == 2


def test_change_undo_redo_reset():
    page = press(open_page(), "less")
    assert shown(page).sparsity == 0.25
    assert state.decode(page.query_params["r"]) == shown(page)
    assert shown(press(page, "undo")) == state.HOME
    assert shown(press(page, "redo")).sparsity == 0.25
    assert shown(press(page, "reset")) == state.HOME
    assert shown(press(page, "undo")).sparsity == 0.25


def test_a_change_that_cannot_be_followed_changes_nothing():
    page = open_page()
    next(button for button in page.button if button.label == "wrong").click().run()
    assert "sparsity is 1.5" in page.error[0].value
    assert shown(page) == state.HOME


def test_another_model_forgets_the_selected_layer():
    page = press(open_page(r=state.encode(state.HOME), layer="conv1.weight"), "other")
    assert page.text[0].value.startswith("layer None")


# ---------------------------------------------------------------- old links


def test_an_address_from_before_the_last_change_is_an_echo(monkeypatch):
    """A browser that has not heard of the change sends the old address with its next question."""
    page = open_page()
    before = page.query_params["r"]
    press(page, "less")
    page.query_params["r"] = before
    page.run()
    assert shown(page).sparsity == 0.25 and page.query_params["r"] != before
    # Later it is the Back button.
    monkeypatch.setattr(state, "LATE", 0.0)
    page.query_params["r"] = before
    page.run()
    assert shown(page).sparsity == state.HOME.sparsity


def test_releases_are_counted_as_the_slider_counts_them():
    state.session.clear()
    first = state.releases()
    state.count_release(first + 1)
    state.count_release(first + 4)  # the two between came as one
    assert state.releases() == first + 4
    state.count_release(0)
    assert state.releases() == first + 5


def test_a_link_of_version_1_still_reads():
    old = {
        "version": 1,
        "model": "digits-cnn",
        "granularity": "channel",
        "scope": "by_hand",
        "ratios": {"conv1.weight": 0.5},
        "floor": 2,
        "epochs": 1,
        "heal_slim": True,
    }
    recipe = Recipe(
        model="digits-cnn",
        granularity="channel",
        scope="manual",
        ratios={"conv1.weight": 0.5},
        min_units=2,
        epochs=1,
        finetune_compact=True,
    )
    assert state.decode(compressed(old)) == recipe
    page = open_page(r=compressed(old))
    assert shown(page) == recipe and not page.warning
    # What the page writes is of today's version.
    assert state.decode(page.query_params["r"]) == recipe
    assert "floor" not in page.query_params["r"]


@pytest.mark.parametrize("name", ["scores", "criteria"])
def test_a_page_opens_by_its_name_and_by_the_one_it_had(home, name):
    page = opened("model", room=name)
    assert not page.exception
    assert page.title[0].value == opened("criteria").title[0].value
    assert "room" not in page.query_params


# ---------------------------------------------------------------- session keys

DASHBOARD = Path(state.__file__).parent
FILES = [file for file in DASHBOARD.rglob("*.py") if file.name != "state.py"]


@cache
def session_keys() -> frozenset[str]:
    """The keys that state.py itself writes into the session."""
    keys = set()
    for node in ast.walk(ast.parse(Path(state.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "session":
            if isinstance(node.slice, ast.Constant):
                keys.add(node.slice.value)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "session.update":
            keys |= {keyword.arg for keyword in node.keywords}
    return frozenset(keys)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_only_state_spells_session_keys(file):
    own = session_keys()
    assert {"recipe", "undo", "lottery_set"} <= own
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            assert node.attr != "session_state", f"line {node.lineno}: ask state.py"
        if not isinstance(node, ast.Call):
            continue
        for keyword in node.keywords:
            if keyword.arg == "key" and isinstance(keyword.value, ast.Constant):
                assert keyword.value.value not in own, f"line {node.lineno}: a key of state.py"
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if called in ("widget_value", "set_widget") and ast.unparse(node.func.value) == "state":
            literal = isinstance(node.args[0], ast.Constant)
            assert not literal, f"line {node.lineno}: spell the key in state.py"


# ---------------------------------------------------------------- colours


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_marks_and_text_stand_out(dark):
    tones = colours.palette(dark)
    texts = (tones.text, tones.muted)
    grounds = (tones.ground, tones.panel)
    assert min(contrast(text, ground) for text in texts for ground in grounds) >= 4.5
    marks = [pair[dark] for pair in colours.HUES.values()]
    marks += [tones.kept, tones.dense, tones.random, tones.highlight, *tones.kinds.values()]
    assert min(contrast(mark, tones.ground) for mark in marks) >= 3


@pytest.mark.parametrize("dark", [False, True])
def test_numbers_in_cells_can_be_read_on_every_colour_of_their_scales(dark):
    """Plotly's own choice had 3.2 on the blue of five times fewer weights."""
    cividis = [[i / (len(CIVIDIS) - 1), stop] for i, stop in enumerate(CIVIDIS)]
    for scale in (colours.difference(dark), colours.strength(dark), cividis):
        grounds = [colours.on_scale(scale, place / 200) for place in range(201)]
        ends = [colour.lower() for _, colour in (scale[0], scale[-1])]
        assert [grounds[0], grounds[-1]] == ends
        z = [[float(place) for place in range(201)]]
        cells = {"x": z[0], "y": [0], "z": z, "zmin": 0, "zmax": 200, "colorscale": scale}
        numbers = base.numbers_in(cells, [["1"] * 201], 12)
        inks = numbers["textfont"]["color"]
        assert min(map(contrast, inks, grounds)) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_the_theme_writes_can_be_read(theme):
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))["theme"][theme]
    tones = colours.palette(theme == "dark")
    assert (tones.text, tones.ground) == (config["textColor"], config["backgroundColor"])
    # Buttons and chips: white on the accent.
    assert contrast("#FFFFFF", config["primaryColor"]) >= 4.5
    sides = (config, config["sidebar"])
    grounds = [side[name] for side in sides for name in GROUNDS]
    for ground in grounds:
        # Streamlit writes captions in the text's colour at 60 %.
        assert contrast(mixed(config["textColor"], ground, 0.6), ground) >= 4.5
    plain = [config["backgroundColor"], config["sidebar"]["backgroundColor"]]
    assert min(contrast(config["primaryColor"], ground) for ground in plain) >= 3
    # The strip of layers writes names in the ground's colour on the colour of the kind.
    assert min(contrast(tones.ground, kind) for kind in tones.kinds.values()) >= 4.5


def mixed(colour: str, ground: str, share: float) -> str:
    pairs = [(int(colour[i : i + 2], 16), int(ground[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(share * a + (1 - share) * b):02X}" for a, b in pairs)


def test_a_technique_looks_the_same_everywhere_and_random_is_grey_and_dotted():
    assert colours.technique("wanda") == colours.technique("wanda")
    assert colours.technique("magnitude").colour != colours.technique("taylor").colour
    random = colours.technique("random")
    assert (random.dash, random.colour) == ("dot", colours.LIGHT.random)
    names = ("snip", "grasp", "synflow", "hessian", "wanda", "fisher")
    assert len({colours.technique(name) for name in names}) == len(names)
