"""What this tab looks at. The only file that spells a session_state or a query-string key.

The recipe is the state: it travels in the address as `?r=`, so a link reopens it exactly. Values from the address are
judged before they are used; one that cannot be followed is replaced by what stood before and told by `warnings()`.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from pruning.errors import PruningError, RecipeError
from pruning.recipe import Recipe

HOME = Recipe(model="digits-cnn", sparsity=0.9, schedule="cubic", steps=4, epochs=2)
"""What the workbench opens with, and what Reset goes back to (on the model of the moment)."""

LOTTERY_RECIPE = Recipe(
    model="digits-mlp",
    start="random",
    sparsity=0.977,
    schedule="geometric",
    steps=17,
    epochs=20,
    optimizer="adam",
    lr=4e-3,
    rewind="init",
    controls=("reinit", "random_mask", "one_shot"),
)
"""What the Lottery page opens with: two minutes at most, and the effect is plain to see."""

SEEDS = 3

UNDO_STEPS = 100
LONGEST_LINK = 8_000  # characters of ?r=
LARGEST_RECIPE = 200_000  # bytes of JSON in it: a deflated bomb stops here
NAMES = re.compile(r"[\w.:\-/]{1,200}")


# ---------------------------------------------------------------- the recipe


def recipe() -> Recipe:
    """The recipe on the bench."""
    begin()
    return st.session_state["recipe"]


def change(**fields: Any) -> None:
    """Change fields of the recipe: one step of undo, and the address follows. Raises RecipeError for what cannot be followed.

    Another model forgets what named the layers of the former one.
    """
    now = recipe()
    if fields.get("model", now.model) != now.model:
        fields = {"ratios": {}, "exclude": (), **fields}
        select_layer(None)
    put(replace(now, **fields))


def put(wanted: Recipe) -> None:
    """Replace the whole recipe: one step of undo."""
    now = recipe()
    if wanted == now:
        return
    st.session_state["undo"] = [*st.session_state["undo"][-UNDO_STEPS:], now]
    st.session_state["redo"] = []
    _set(wanted)


def undo() -> None:
    if can_undo():
        *rest, last = st.session_state["undo"]
        st.session_state["undo"], st.session_state["redo"] = (
            rest,
            [*st.session_state["redo"], recipe()],
        )
        _set(last)


def redo() -> None:
    if can_redo():
        *rest, last = st.session_state["redo"]
        st.session_state["redo"], st.session_state["undo"] = (
            rest,
            [*st.session_state["undo"], recipe()],
        )
        _set(last)


def reset() -> None:
    """Back to the recipe the workbench opens with, for the model of the moment."""
    put(replace(HOME, model=recipe().model))


def can_undo() -> bool:
    begin()
    return bool(st.session_state["undo"])


def can_redo() -> bool:
    begin()
    return bool(st.session_state["redo"])


def _set(wanted: Recipe) -> None:
    if wanted.model != st.session_state["recipe"].model:
        select_layer(None)
    st.session_state["recipe"] = wanted
    _write("r", encode(wanted))


# ---------------------------------------------------------------- what is looked at


def layer() -> str | None:
    """The layer that every view follows, as the tab or the address says it; `layer_among` judges it."""
    begin()
    return st.session_state["layer"]


def layer_among(weights: Mapping[str, int]) -> str:
    """The selected layer; the largest when none is selected or the model does not have it (which is told). weights: of each layer."""
    wanted, largest = layer(), max(weights, key=lambda name: weights[name])
    if wanted in weights:
        return str(wanted)
    if wanted is not None:
        warn(
            f"This model has no layer called {_quoted(wanted)}: showing {largest}. Click another layer to change it."
        )
        select_layer(None)
    return largest


def select_layer(name: str | None) -> None:
    begin()
    st.session_state["layer"] = name
    _write("layer", name)


def run_id() -> str | None:
    """The run that the Prune page shows."""
    begin()
    return st.session_state["run"]


def open_run(id: str | None) -> None:
    begin()
    st.session_state["run"] = id
    _write("run", id)


def picked() -> list[str]:
    """Runs picked for comparison, the reference first."""
    begin()
    return list(st.session_state["picked"])


def pick(ids: Iterable[str]) -> None:
    begin()
    st.session_state["picked"] = list(dict.fromkeys(ids))
    _write("c", ",".join(st.session_state["picked"]) or None)


def lottery_recipe() -> Recipe:
    """The lottery that the Lottery page draws, on the model of the moment."""
    return replace(_ticket(), model=recipe().model)


def change_lottery_recipe(**fields: Any) -> None:
    """Change fields of the lottery; the address follows. Raises RecipeError for what cannot be followed."""
    st.session_state["ticket"] = replace(_ticket(), **fields)
    _write("t", encode(st.session_state["ticket"]))


def _ticket() -> Recipe:
    begin()
    lottery: Recipe = st.session_state["ticket"]
    return lottery


def seeds() -> int:
    """How many seeds a lottery is drawn with."""
    begin()
    return int(st.session_state["seeds"])


def set_seeds(count: int) -> None:
    begin()
    st.session_state["seeds"] = count


def lottery_set() -> str | None:
    """The set of runs that the Lottery page shows."""
    begin()
    return st.session_state["drawn"]


def open_lottery_set(id: str | None) -> None:
    begin()
    st.session_state["drawn"] = id
    _write("set", id)


@dataclass(frozen=True)
class Upload:
    """The last file handed in. id: None when it was refused; message: the report, or why not."""

    name: str
    id: str | None
    message: str


def last_upload() -> Upload | None:
    begin()
    return st.session_state["upload"]


def note_upload(outcome: Upload) -> None:
    """Remember it, and have the next uploader start empty, so that the file's copy in memory goes."""
    begin()
    st.session_state["upload"] = outcome
    st.session_state["uploads"] += 1


def upload_count() -> int:
    """Files handed in so far: a new key for a new uploader."""
    begin()
    return st.session_state["uploads"]


def widget_value(key: str) -> Any:
    """What a control holds, for the callback that it calls."""
    return st.session_state[key]


def every_image() -> bool:
    """Whether maps ask every validation image, also where a part would do."""
    return bool(st.session_state.get("every_image"))


def ask_every_image() -> None:
    st.session_state["every_image"] = True


def dark() -> bool:
    """Whether this tab shows the dark theme."""
    return st.context.theme.type == "dark"


# ---------------------------------------------------------------- between the runs of a script


def warn(text: str) -> None:
    """Tell at the top of the page, until the next run of the script."""
    begin()
    if text not in st.session_state["warnings"]:
        st.session_state["warnings"].append(text)


def warnings() -> list[str]:
    """What there is to tell; asking takes it."""
    begin()
    told, st.session_state["warnings"] = st.session_state["warnings"], []
    return list(told)


def expect(key: str) -> None:
    """The page waits for a job: the frame asks after it until it ends."""
    begin()
    st.session_state["expected"].add(key)


def expected() -> set[str]:
    begin()
    return set(st.session_state["expected"])


def begin() -> None:
    """Fill what a new tab has: the recipe of home, nothing to undo."""
    if "recipe" not in st.session_state:
        st.session_state.update(recipe=HOME, undo=[], redo=[], layer=None, run=None, picked=[])
        st.session_state.update(warnings=[], expected=set(), written={}, upload=None, uploads=0)
        st.session_state.update(ticket=LOTTERY_RECIPE, seeds=SEEDS, drawn=None)


def take_address() -> None:
    """Once at the start of each run of the script: take in what the address says, fill it where it says nothing.

    Going to another page empties the address, a link or the Back button fills it: both are told apart from our own
    writing by what we wrote last.
    """
    fresh = "recipe" not in st.session_state
    begin()
    st.session_state["expected"] = set()
    said = {key: st.query_params.get(key) for key in READERS}
    for key, value in said.items():
        if value is not None and value != st.session_state["written"].get(key):
            READERS[key](value)
        elif value is None:
            _write(key, st.session_state["written"].get(key))
    if fresh:
        st.session_state["undo"] = []  # a link is where its reader starts
    _write("r", encode(st.session_state["recipe"]))


def requested_page() -> str | None:
    """The page that the address asks for by name, once: the front door leads there."""
    return st.query_params.pop("room", None)


def link() -> str:
    """The address that reopens this state."""
    parts = {key: value for key, value in st.session_state["written"].items() if value}
    return f"{(st.context.url or '').split('?')[0]}?{urlencode(parts)}"


def _write(key: str, value: str | None) -> None:
    st.session_state["written"][key] = value
    if value:
        if st.query_params.get(key) != value:
            st.query_params[key] = value
    elif key in st.query_params:
        del st.query_params[key]


def _read_recipe(said: str) -> None:
    st.session_state["written"]["r"] = said
    try:
        wanted = decode(said)
    except PruningError as error:
        warn(
            f"The address holds a recipe that cannot be followed: {error} The recipe on the bench stays as it was."
        )
    else:
        put(wanted)


def _read_ticket(said: str) -> None:
    st.session_state["written"]["t"] = said
    try:
        wanted = decode(said)
    except PruningError as error:
        warn(
            f"The address holds a lottery that cannot be drawn: {error} The settings stay as they were."
        )
    else:
        st.session_state["ticket"] = wanted


def _read_set(said: str) -> None:
    if NAMES.fullmatch(said):
        open_lottery_set(said)
    else:
        warn(
            f"The address names a set of runs {_quoted(said)}, which cannot be the name of one: showing none."
        )
        open_lottery_set(None)


def _read_layer(said: str) -> None:
    st.session_state["written"]["layer"] = said
    st.session_state["layer"] = said[:200]


def _read_run(said: str) -> None:
    if NAMES.fullmatch(said):
        open_run(said)
    else:
        warn(
            f"The address names a run {_quoted(said)}, which cannot be the name of one: showing none."
        )
        open_run(None)


def _read_picked(said: str) -> None:
    ids = [id for id in said.split(",")[:50] if NAMES.fullmatch(id)]
    if len(ids) < len(said.split(",")):
        warn("Some of the runs in the address cannot be names of runs: they are left out.")
    pick(ids)


READERS = {
    "r": _read_recipe,
    "layer": _read_layer,
    "run": _read_run,
    "c": _read_picked,
    "t": _read_ticket,
    "set": _read_set,
}
"""Keys of the address, in the order they are read: another recipe forgets the layer, so the layer comes after it."""


def _quoted(said: str) -> str:
    """A stranger's text, short."""
    return "“" + said[:60] + ("…”" if len(said) > 60 else "”")


# ---------------------------------------------------------------- the link


def encode(wanted: Recipe) -> str:
    """A recipe as the text of a link: what differs from the defaults, deflated, URL-safe base64."""
    text = json.dumps(wanted.short(), sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def decode(said: str) -> Recipe:
    """The recipe of a link. Raises RecipeError for what is none, whatever it is."""
    broken = "it is damaged or cut off; copy the whole link again."
    if len(said) > LONGEST_LINK:
        raise RecipeError(
            f"it has {len(said):,} characters, and a link has at most {LONGEST_LINK:,}; copy the whole link again."
        )
    try:
        packed = base64.b64decode(said + "=" * (-len(said) % 4), altchars=b"-_", validate=True)
        text = zlib.decompressobj().decompress(packed, LARGEST_RECIPE)
        return Recipe.from_dict(json.loads(text))
    except RecipeError:
        raise
    except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
        raise RecipeError(broken) from None
