"""The state of a tab: recipe, layer, run, comparison, lottery. Alone in spelling session keys.

The recipe is the state: the address carries it as `?r=`, so a link reopens it exactly. Values from
the address are checked before they are used; a bad one is ignored, and `warnings()` says so.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from threading import local
from typing import Any, TypeVar
from urllib.parse import urlencode

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from dashboard import lesson, locks, rooms, visitors, words
from dashboard.lesson import Lesson, Step
from dashboard.locks import Locks
from dashboard.rooms import Room
from pruning.advice.target import Target
from pruning.errors import PruningError, RecipeError
from pruning.formats.uploads import Spooled
from pruning.recipe import VERSION, Recipe
from pruning.sweeps import presets
from pruning.sweeps.plan import Plan

session = st.session_state  # a proxy: it finds the tab that the running script belongs to

HOME = Recipe(model="digits-cnn", sparsity=0.9, schedule="cubic", steps=4, epochs=2)
"""What the workbench opens with, and what Reset returns to (on the current model)."""

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
"""What the Lottery page opens with: two minutes at most, and the effect is clear."""

SEEDS = 3

UNDO_STEPS = 100
NEWS = 60.0  # seconds for which a tab says that its class has ended
LATE = 2.0  # seconds in which a browser hears of an address that was written
LONGEST_LINK = 8_000  # characters of ?r=
LARGEST_RECIPE = 200_000  # bytes of JSON in it: a decompression bomb stops here
CODE = "class"
"""What the address of a class has its code in: `/?class=CODE`."""

ID = re.compile(r"[\w.:\-/]{1,200}")
PROJECTOR = "projector"  # ?view=
SIMPLE, FULL = "simple", "full"  # ?layout=
LAYOUT_COOKIE = "workbench-layout"
MOST_SEEDS = 10  # of a lottery


Made = TypeVar("Made")


# ---------------------------------------------------------------- the recipe


def recipe() -> Recipe:
    """The current recipe."""
    begin()
    return session["recipe"]


def change(**fields: Any) -> None:
    """Change fields of the recipe: one step of undo, and the address follows.

    Layers that another model does not have are `refit`'s affair. Raises RecipeError for values that
    cannot be.
    """
    put(replace(recipe(), **fields))


def put(wanted: Recipe) -> None:
    """Replace the whole recipe: one step of undo. What is locked stays as it is, and says so.

    Raises RecipeError for a recipe that does not go with what is locked.
    """
    current = recipe()
    refused = locks.differing(current, wanted, all_locked())
    if refused:
        stays = "stays as it is" if len(refused) == 1 else "stay as they are"
        warn(f"{_named(refused)} {stays}. {why_locked(refused[0])}")
        wanted = locks.kept(current, wanted, refused)
    if wanted == current:
        return
    session["undo"] = [*session["undo"][-UNDO_STEPS:], current]
    session["redo"] = []
    _set(wanted)


def amend(wanted: Recipe) -> None:
    """Replace the recipe within the last step: Undo takes back both."""
    begin()
    session["redo"] = []
    _set(wanted)


def before_manual() -> Recipe | None:
    """The last recipe whose scope was not manual, as far as Undo goes back."""
    begin()
    earlier = [one for one in session["undo"] if one.scope != "manual"]
    return earlier[-1] if earlier else None


def undo() -> None:
    if can_undo():
        _step_back("undo", "redo")


def redo() -> None:
    if can_redo():
        _step_back("redo", "undo")


def _step_back(source: str, target: str) -> None:
    """Take the last recipe of one list that differs in what is not locked; the current one is put
    on the other list.
    """
    current = recipe()
    while session[source]:
        *session[source], last = session[source]
        with suppress(RecipeError):  # one that does not go with what is locked is passed over
            wanted = locks.kept(current, last, all_locked())
            if wanted != current:
                session[target] = [*session[target], current]
                _set(wanted)
                return


def reset() -> None:
    """Back to the recipe the workbench opens with, for the current model; in a lesson back to its
    step's.
    """
    now = step()
    try:
        if now is not None and now.recipe is not None:
            put(now.recipe)
        else:
            put(replace(HOME, model=recipe().model))
    except RecipeError as error:  # it does not go with what is locked
        warn(str(error))


def can_undo() -> bool:
    begin()
    return _leads_on("undo")


def can_redo() -> bool:
    begin()
    return _leads_on("redo")


def _leads_on(source: str) -> bool:
    """Whether a recipe of the list differs from the current one in what is not locked."""
    locked = all_locked()
    if not locked:
        return bool(session[source])
    current = recipe()
    for last in session[source]:
        with suppress(RecipeError):
            if locks.kept(current, last, locked) != current:
                return True
    return False


def _set(wanted: Recipe) -> None:
    if wanted.model != session["recipe"].model:
        select_layer(None)
    session["recipe"] = wanted
    _write("r", _encoded())


def _encoded() -> str:
    """The current recipe as the text of a link; made once, and asked for at every drawing."""
    before, text = session.get("encoded", (None, ""))
    current: Recipe = session["recipe"]
    if current is not before:
        text = encode(current)
        session["encoded"] = (current, text)
    return str(text)


@dataclass(frozen=True)
class Adjustment:
    """What was changed in the recipe beyond what people asked for. text: one sentence."""

    text: str
    recipe: Recipe


def note_adjustment(text: str) -> None:
    """Say it at the top, with Undo, for as long as the recipe stays as it is now."""
    session["adjustment"] = Adjustment(text, recipe())


def adjustment() -> str | None:
    begin()
    noted = session["adjustment"]
    return noted.text if noted and noted.recipe == recipe() else None


@dataclass(frozen=True)
class RatioShare:
    """What the ratios of a manual recipe came to on its model: a share of the recipe's budget."""

    ratios: dict[str, float]
    share: float


def remember_share(ratios: dict[str, float], share: float) -> None:
    """Remember it while the recipe's own model is still at hand."""
    begin()
    session["ratio_share"] = RatioShare(ratios, share)


def remembered_share(ratios: dict[str, float]) -> float | None:
    begin()
    noted = session["ratio_share"]
    return noted.share if noted and noted.ratios == ratios else None


@dataclass(frozen=True)
class Fill:
    """Ratios that were filled from a map in progress. recipe: with them; tolerated: in points."""

    recipe: Recipe
    tolerated: float


def follow_map(tolerated: float) -> None:
    """Let the recipe, filled from a map just now, follow it until something else changes it."""
    session["fill"] = Fill(recipe(), tolerated)


def followed() -> Fill | None:
    """The fill that follows its map: None once the recipe was changed otherwise."""
    begin()
    fill = session["fill"]
    return fill if fill and fill.recipe == recipe() else None


def stop_following() -> None:
    session["fill"] = None


# ---------------------------------------------------------------- locks


def locked(name: str) -> bool:
    """Whether a control (a name of `locks.CONTROLS`) is disabled: its fields stay as they are."""
    return name in all_locked()


def hidden(name: str) -> bool:
    """Whether a control is not drawn. Its fields stay as they are, too, unless the simple layout
    alone leaves it out: that is a way of looking and no lock.
    """
    return any(name in one.hidden for one in _locks()) or (simple() and name in locks.IN_FULL)


def all_locked() -> frozenset[str]:
    """Every control whose fields stay as they are."""
    return frozenset().union(*(one.locked | one.hidden for one in _locks()))


def why_locked(name: str) -> str:
    """Why a control is locked, in a sentence; "" where it is not."""
    sources = [one.source for one in _locks() if name in one.locked | one.hidden]
    return sources[0] if sources else ""


def address_locks() -> Locks:
    """What the address locks and hides."""
    begin()
    return session["locks"]


def set_address_locks(locked: Iterable[str] = (), hidden: Iterable[str] = ()) -> None:
    """Lock and hide controls as a link does; nothing: unlock. Unknown names are refused.

    Raises RecipeError.
    """
    begin()
    unknown = [name for name in (*locked, *hidden) if name not in locks.CONTROLS]
    if unknown:
        known = ", ".join(locks.CONTROLS)
        raise RecipeError(f"There is no control {_quoted(unknown[0])}: those are {known}.")
    session["locks"] = Locks(frozenset(locked), frozenset(hidden), LOCKED_BY_LINK)
    _locks_changed()
    _write("lock", ",".join(sorted(locked)) or None)
    _write("hide", ",".join(sorted(hidden)) or None)


LOCKED_BY_LINK = "Locked by the link that opened this page. Unlock stands at the side."
LOCKED_BY_LESSON = "Locked by this step of the lesson, so that one thing is changed at a time."
PREDICT_FIRST = "Predict first: the run answers what the lesson asks."
LOCKED_BY_TEACHER = "Locked by whoever teaches this class."
KNOWN = frozenset(locks.CONTROLS)


def _locks() -> list[Locks]:
    """As they were made last, until something changes them: every control asks, several times."""
    begin()
    made: list[Locks] | None = session["made_locks"]
    if made is None:
        session["made_locks"] = made = _make_locks()
    return made


def _locks_changed() -> None:
    session["made_locks"] = None


def _make_locks() -> list[Locks]:
    """From the address, from the lesson's step, and from the teacher of a class room."""
    ways = [session["locks"]]
    now = step()
    if now is not None:
        ways.append(Locks(now.lock, now.hide, LOCKED_BY_LESSON))
        if must_predict():
            ways.append(Locks(frozenset([locks.RUN]), frozenset(), PREDICT_FIRST))
    room = session["room"]  # asked for at every control: the file is looked at once a drawing
    if room is not None:
        ways.append(Locks(room.locks & KNOWN, room.hidden & KNOWN, LOCKED_BY_TEACHER))
    return ways


# ---------------------------------------------------------------- the class room


def room() -> Room | None:
    """The class that this browser is in, as it was when the page was drawn."""
    begin()
    return session["room"]


def look_into_room() -> None:
    """Look again: who is in a class may have changed since."""
    begin()
    before: Room | None = session["room"]
    session["room"] = rooms.room_of(visitors.me())
    _locks_changed()
    if before is not None and session["room"] is None:
        session["class_ended"] = time.monotonic() if rooms.current() is None else -NEWS


def class_has_ended() -> bool:
    """Whether the class that this tab was in ended lately: a page may be drawn twice at once, so
    that one drawing alone could pass unseen.
    """
    ended: float = session.get("class_ended", -NEWS)
    return time.monotonic() - ended < NEWS


@dataclass(frozen=True)
class Followed:
    """The orders of a room up to which a tab has followed: counts, as Room has them."""

    room: str
    pushes: int
    starts: int
    resets: int


def followed_orders() -> Followed | None:
    return session.get("followed_orders")


def note_followed(followed: Followed) -> None:
    session["followed_orders"] = followed


def take_handed(wanted: Recipe) -> None:
    """The recipe that a teacher handed to all, with what it locks: one step of undo."""
    current = recipe()
    if wanted != current:
        session["undo"] = [*session["undo"][-UNDO_STEPS:], current]
        session["redo"] = []
        _set(wanted)


def start_over() -> None:
    """Back to what a new tab starts with, where a class does so."""
    begin()
    leave_lesson()
    session.update(undo=[], redo=[], reached={}, predictions={}, revealed=set())
    _locks_changed()
    _set(HOME)
    open_run(None)
    pick(())


def class_code() -> str:
    """The code of a class that the address had, for the form that asks for it."""
    return str(session.get("class_code", ""))


def _named(controls: Sequence[str]) -> str:
    """`Criterion, scope and minimum units`, at the start of a sentence."""
    shown = [words.control(control) for control in controls]
    text = " and ".join([part for part in (", ".join(shown[:-1]), shown[-1]) if part])
    return text[0].upper() + text[1:]


# ---------------------------------------------------------------- the lesson


@dataclass(frozen=True)
class Place:
    """Where this tab is in a lesson. step: its number, from 1."""

    lesson: str
    step: int


def place() -> Place | None:
    """None without a lesson."""
    begin()
    return session["place"]


def current_lesson() -> Lesson | None:
    """None without one, and for one whose file cannot be followed, which the panel says."""
    now = place()
    if now is None:
        return None
    with suppress(PruningError):
        return lesson.find(now.lesson)
    return None


def step() -> Step | None:
    """The step of the lesson that this tab is at."""
    shown, now = current_lesson(), place()
    if shown is None or now is None or now.step > len(shown.steps):
        return None
    return shown.steps[now.step - 1]


def enter(name: str, number: int, *, preset: bool = True) -> None:
    """Go to a step of a lesson: its recipe, its layer and its page.

    preset: False for a link that brings a recipe of its own. Raises PruningError for a lesson or a
    step that is not there.
    """
    begin()
    shown = lesson.find(name)
    if not 1 <= number <= len(shown.steps):
        raise PruningError(f"{shown.title!r} has {len(shown.steps)} steps, and no step {number}.")
    session["place"] = Place(name, number)
    _locks_changed()
    _write("lesson", name)
    _write("step", str(number))
    now = shown.steps[number - 1]
    if preset and now.recipe is not None:
        # What was before the step cannot be undone into: that would change what it locks.
        session.update(undo=[], redo=[])
        _set(now.recipe)
    if now.layer is not None:
        select_layer(now.layer)
    session["wanted_page"] = now.page if preset else None
    reached = session["reached"]
    reached[name] = max(number, reached.get(name, 0))
    rooms.note_step(visitors.me(), name, number)


def leave_lesson() -> None:
    """What it locked is free again; the recipe stays as it is."""
    begin()
    session["place"] = session["wanted_page"] = None
    _locks_changed()
    _write("lesson", None)
    _write("step", None)


def take_wanted_page() -> str | None:
    """The page that a step takes place on, once."""
    begin()
    wanted, session["wanted_page"] = session["wanted_page"], None
    return wanted


def want_page(name: str) -> None:
    """Go to a page with the coming run of the script, as a lesson's step does."""
    begin()
    session["wanted_page"] = name


def reached(name: str) -> int:
    """The furthest step of a lesson that this tab was at; 0 for none."""
    begin()
    return int(session["reached"].get(name, 0))


def own_prediction() -> float | None:
    """What was predicted in this step, in this tab or, without a class room, before it."""
    now = place()
    if now is None:
        return None
    if now not in session["predictions"] and rooms.room_of(visitors.me()) is None:
        for value in rooms.predictions(visitors.me(), now.lesson, now.step)[:1]:
            session["predictions"][now] = value
            _locks_changed()
    return session["predictions"].get(now)


def must_predict() -> bool:
    """Whether a lesson asks for a prediction that was not made yet: pages give no answer before."""
    now = step()
    return now is not None and now.predict is not None and own_prediction() is None


def predict(value: float) -> None:
    """Remember what somebody expects of this step; their class room learns of it, by no name."""
    now = place()
    if now is not None:
        session["predictions"][now] = value
        _locks_changed()
        rooms.note_prediction(visitors.me(), now.lesson, now.step, value)


# ---------------------------------------------------------------- what the pages show


def layer() -> str | None:
    """The layer that every view follows, unchecked: it may come from an address."""
    begin()
    return session["layer"]


def layer_among(weights: Mapping[str, int]) -> str:
    """The selected layer if the model has it; the largest if not, with a warning.

    weights: how many each layer has.
    """
    wanted = layer()
    if wanted in weights:
        return str(wanted)
    largest = max(weights, key=lambda name: weights[name])
    if wanted is not None:
        warn(
            f"This model has no layer called {_quoted(wanted)}: showing {largest}. "
            "Click another layer to change it."
        )
        select_layer(None)
    return largest


def select_layer(name: str | None) -> None:
    begin()
    if session["unit"] is not None and name != session["layer"]:
        open_unit(FIRST)  # another layer has others
    session["layer"] = name
    _write("layer", name)


FIRST = -1
"""The unit that surgery opens on: the first of the order in which it shows them."""


def unit() -> int | None:
    """The unit of the layer that surgery shows, unchecked; None while Inspect shows weights."""
    begin()
    number: int | None = session["unit"]
    return number


def open_unit(number: int | None) -> None:
    begin()
    session["unit"] = number
    text = "first" if number == FIRST else str(number)
    _write("unit", None if number is None else text)


def page_title() -> str:
    """The name of the page that is open."""
    return str(session.get("page", ""))


def set_page_title(title: str) -> None:
    session["page"] = title


def question() -> str:
    """What the page that is open asks, in its heading."""
    return str(session.get("question", ""))


def set_question(text: str) -> None:
    session["question"] = text


def run_id() -> str | None:
    """The run that is open: live on the Prune page, with a page of its own once it ended."""
    begin()
    return session["run"]


def open_run(id: str | None) -> None:
    begin()
    session["run"] = id
    _write("run", id)


def watch(id: str | None) -> None:
    """Note that this tab sees the run live on the Prune page."""
    session["watched"] = id


def watched() -> str | None:
    """The run that this tab saw live on the Prune page, and has not left since."""
    return session.get("watched")


def picked() -> list[str]:
    """Runs picked for comparison, the reference first."""
    begin()
    return list(session["picked"])


def pick(ids: Iterable[str]) -> None:
    begin()
    session["picked"] = list(dict.fromkeys(ids))
    _write("c", ",".join(session["picked"]) or None)


def marked() -> list[str]:
    """Runs that are marked on the Runs page, for what can be done with several."""
    begin()
    return list(session["marked"])


def mark(ids: Iterable[str]) -> None:
    begin()
    session["marked"] = list(dict.fromkeys(ids))


def mark_anew(ids: Iterable[str]) -> None:
    """Mark other runs than the table has: it is drawn with them, under a key of its own."""
    mark(ids)
    session["marks"] = marks() + 1


def marks() -> int:
    """How often runs were marked elsewhere than in the table."""
    return int(session.get("marks", 0))


def note_trashed(ids: Iterable[str]) -> None:
    """Remember what this tab deleted last, for its Undo."""
    session["trashed"] = list(ids)


def last_trashed() -> list[str]:
    return list(session.get("trashed", ()))


def lottery_recipe() -> Recipe:
    """The recipe of the Lottery page's iterative pruning, on the current model."""
    begin()
    return replace(session["lottery_recipe"], model=recipe().model)


def change_lottery_recipe(**fields: Any) -> None:
    """Change fields of the lottery's recipe; the address follows.

    Raises RecipeError for a recipe that cannot be.
    """
    begin()
    session["lottery_recipe"] = replace(session["lottery_recipe"], **fields)
    _write("t", encode(session["lottery_recipe"]))


def seeds() -> int:
    """How many seeds a lottery runs with."""
    begin()
    return int(session["seeds"])


def set_seeds(count: int) -> None:
    begin()
    session["seeds"] = count
    _write("seeds", None if count == SEEDS else str(count))


def lottery_set() -> str | None:
    """The set of runs that the Lottery page shows."""
    begin()
    return session["lottery_set"]


def open_lottery_set(id: str | None) -> None:
    begin()
    session["lottery_set"] = id
    _write("set", id)


def plan() -> Plan:
    """The plan of the Sweeps page: the first preset's for the current model, until it is edited."""
    begin()
    return session["plan"] or presets.which_technique([recipe().model])


def has_own_plan() -> bool:
    begin()
    return session["plan"] is not None


def set_plan(wanted: Plan) -> None:
    begin()
    session["plan"] = wanted
    _write("plan", encode_plan(wanted))


def target() -> Target:
    """What the Advisor is asked, of the current model."""
    begin()
    model = recipe().model
    asked: Target | None = session["target"]
    return replace(asked, model=model) if asked else Target(model)


def set_target(wanted: Target) -> None:
    begin()
    session["target"] = wanted
    _write("target", encode_target(wanted))


def sweep() -> str | None:
    """The sweep that the Sweeps page shows: its id, or `shipped:` and a sample model's name."""
    begin()
    return session["sweep"]


def open_sweep(id: str | None) -> None:
    begin()
    if id != session["sweep"]:
        close_point()
    session["sweep"] = id
    _write("sweep", id)


def point() -> tuple[str, float] | None:
    """The picked point of a sweep's picture: technique and level; of a run alone, `run:` and id."""
    begin()
    return session["point"]


def pick_point(technique: str, level: float) -> None:
    begin()
    session["point"] = (technique, level)
    _write("point", f"{level!r} {technique}")


def close_point() -> None:
    session["point"] = None
    _write("point", None)


@dataclass(frozen=True)
class Upload:
    """The last uploaded file.

    id: None when it was refused; message: the report, or why; elsewhere: architecture that a
    refused file fits -> the model that it is there.
    """

    name: str
    id: str | None
    message: str
    elsewhere: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pending:
    """An upload that is not checked yet. spooled: one file, or all shards of one model; model: the
    architecture to fill; target: of a data set for that model, the column to predict, else None.
    """

    spooled: tuple[Spooled, ...]
    model: str
    target: str | None = None


def pending() -> Pending | None:
    return session.get("pending_upload")


def set_pending(upload: Pending) -> None:
    """One that was there before makes way."""
    _forget_pending()
    session["pending_upload"] = upload


def _forget_pending() -> None:
    before: Pending | None = session.pop("pending_upload", None)
    if before is not None:
        for copy in before.spooled:
            copy.remove()


def last_upload() -> Upload | None:
    begin()
    return session["upload"]


def note_upload(upload: Upload) -> None:
    """Remember it, and let the next uploader start empty: its copy of the file leaves memory."""
    begin()
    session["upload"] = upload
    session["uploads"] += 1
    _forget_pending()


def last_data() -> Upload | None:
    """The last data set that somebody brought."""
    begin()
    return session["data_upload"]


def note_data(upload: Upload) -> None:
    """As `note_upload`, of a data set."""
    begin()
    session["data_upload"] = upload
    session["uploads"] += 1
    _forget_pending()


def upload_count() -> int:
    """Files uploaded so far: a new key for a new uploader."""
    begin()
    return session["uploads"]


def every_image() -> bool:
    """Whether maps use every validation image, also where a part would do."""
    return bool(session.get("every_image"))


def ask_every_image() -> None:
    session["every_image"] = True


def ask_help() -> None:
    """Open the list of keyboard shortcuts in the coming run of the script."""
    session["help"] = True


def take_help() -> bool:
    """Whether it was asked for since the last call."""
    return bool(session.pop("help", False))


def dark() -> bool:
    """Whether this tab shows the dark theme. Never in a handout: it may be printed."""
    return st.context.theme.type == "dark" and not recording()


# ---------------------------------------------------------------- how it is shown


def projector() -> bool:
    """Whether this tab shows one chart, large: a room reads it from the last row."""
    begin()
    return bool(session["view"] == PROJECTOR)


def set_projector(on: bool) -> None:
    begin()
    session["view"] = PROJECTOR if on else None
    session["projected"] = None
    _write("view", session["view"])
    _write("chart", None)


def projected() -> str | None:
    """The name of the chart that the projector shows; None for the page's first."""
    begin()
    return session["projected"]


def project(name: str) -> None:
    begin()
    session["projected"] = name
    _write("chart", name)


def window_height() -> int:
    """Of the projector's window, in pixels; a projector's own until the browser has told."""
    return int(session.get("window_height", 768))


def set_window_height(pixels: int) -> None:
    session["window_height"] = min(4000, max(200, pixels))


def projection() -> Any:
    """What the projector shows in this run of the script."""
    return session.get("projection")


def set_projection(projection: Any) -> None:
    session["projection"] = projection


def simple() -> bool:
    """Whether pages show only what a first run needs."""
    begin()
    return bool(session["layout"] == SIMPLE)


def set_layout(simple: bool) -> None:
    """For this tab and its links; the browser keeps it (`cookie`)."""
    begin()
    session["layout"] = SIMPLE if simple else FULL
    session["chosen_layout"] = session["layout"]
    _write("layout", SIMPLE if simple else None)


def cookie() -> str:
    """What the browser is to keep, once somebody chose it in this tab: `name=value`, or ""."""
    chosen = session.get("chosen_layout")
    return f"{LAYOUT_COOKIE}={chosen}" if chosen else ""


def show_by_default(key: str, value: str) -> None:
    """What a page shows although the address does not name it: links do, or they would show
    another thing to whoever has other runs.
    """
    begin()
    session["by_default"][key] = value


# ---------------------------------------------------------------- shared


def ask_share() -> None:
    """Open the dialog in the coming run of the script."""
    session["share_asked"] = True


def take_share() -> bool:
    """Whether it was asked for since the last call."""
    return bool(session.pop("share_asked", False))


def ask_handout() -> None:
    """Note what the page draws in the coming run of the script."""
    session["handout_parts"] = []


def recording() -> bool:
    """Whether what is drawn now is noted for a handout."""
    return session.get("handout_parts") is not None


def handout_parts() -> list[str] | None:
    """What was noted so far; None where nothing is."""
    return session.get("handout_parts")


def end_handout(made: Any) -> None:
    """Keep what was made of the notes until the dialog has taken it."""
    session["handout_parts"] = None
    session["handout"] = made


def take_handout() -> Any:
    """What was made last; None where nothing was since the last call."""
    return session.pop("handout", None)


# ---------------------------------------------------------------- what the page shows now


@dataclass(frozen=True)
class Standing:
    """What a page shows of a recipe besides the recipe. history: (can undo, can redo)."""

    history: tuple[bool, bool]
    adjustment: str | None


def standing() -> Standing:
    """What a page drawn now would show."""
    return Standing((can_undo(), can_redo()), adjustment())


def shown() -> Standing | None:
    """What the page shows; None while it is being drawn, or where its last drawing was cut off."""
    return session.get("shown")


def note_shown() -> None:
    """The page now shows all that it would."""
    session["shown"] = standing()


def releases() -> int:
    """Counts how often the slider was let go: the slider tells an old drawing of itself by it.

    It starts at the time, so that a session counts on from one that the server has forgotten.
    """
    return int(session.setdefault("releases", int(1000 * time.time())))


def count_release(turn: int) -> None:
    """turn: what the slider counts; two releases may reach us as one."""
    session["releases"] = max(releases() + 1, turn)


def is_open(key: str) -> bool:
    """Whether a popover that draws its content on demand is open."""
    return bool(session.get(key, False))


def opens(key: str, label: str, at_first: bool) -> bool:
    """Whether an expander is to be drawn open. at_first: where it was not drawn before.

    Streamlit takes one with another label, or another answer of this, for another expander, which
    must be as open as the one before.
    """
    shown, opened = session.get(f"{key}-shown", (None, at_first))
    if shown != label:
        opened = at_first or is_open(key)
        session[f"{key}-shown"] = (label, opened)
    return bool(opened)


# ---------------------------------------------------------------- widgets

MAP_BESIDE = "map-beside"
MAP_TOLERATED = "map-tolerated"
MAP_SORT = "map-sort"
MAP_MODE = "map-mode"
MAP_RECONSTRUCTED = "map-reconstructed"
"""Keys of the Sensitivity page's own controls."""

CLASS_LISTED = "class-listed"
CLASS_LOCKED, CLASS_HIDDEN = "class-locks", "class-hidden"
CLASS_LESSON, CLASS_STEP = "class-lesson", "class-lesson-step"
CLASS_RULE, CLASS_LEAST = "class-rule", "class-least"
"""Keys of the Class page's own controls: whether one stands on its board; what its teacher locks
and hides, starts for all, and the rule of the board."""

ADVANCED_OPEN = "form-advanced"
"""Key of the expander of a recipe's advanced options."""

OWN_NAME = "your-name"
"""Key of the field for what a visitor is called."""

FLIPPED_OF = "compare-flipped"
"""Key of the control that picks a run on the Compare page, whose flipped examples are shown."""


def form_key(field: str) -> str:
    """The key of the widget that edits a field of the recipe."""
    return f"form-{field}"


def cards_key(kind: str) -> str:
    """The key of the cards from which a technique of a kind is picked."""
    return f"cards-{kind}"


def option_key(kind: str, technique: str, option: str) -> str:
    """The key of the widget that edits an option of a technique."""
    return f"option-{kind}-{technique}-{option}"


def widget_key(key: str, shown: Any) -> str:
    """The key under which a widget is drawn that is to show this: a new one where it showed else.

    With each press a browser sends what all its widgets show. What it sent before it had drawn a
    new value is an old value of the same widget, which would count as entered now, and take back
    what the slider, Undo or a click on the map had just set.
    """
    versions = session.setdefault("widget_versions", {})
    version, before = versions.get(key, (0, shown))
    if session.get(_versioned(key, version), before) != shown:
        version += 1
    versions[key] = (version, shown)
    return _versioned(key, version)


def _versioned(key: str, version: int) -> str:
    return f"{key}-{version}" if version else key


def widget_value(key: str, default: Any = None) -> Any:
    """The value of a widget, for the callback that it calls."""
    return session.get(key, default)


def set_widget(key: str, value: Any) -> None:
    """What a widget will show. Call it before the widget: Streamlit forbids it afterwards."""
    session[key] = value


@dataclass(frozen=True)
class RatioTable:
    """The table of ratios as it was last drawn. base: layer -> ratio before edits; key: its own."""

    base: dict[str, float]
    key: str


def ratio_table() -> RatioTable | None:
    return session.get("ratio_table")


def new_ratio_table(base: dict[str, float]) -> RatioTable:
    """A table under a new key: one that keeps its key keeps the edits made in it, too."""
    session["ratio_tables"] = session.get("ratio_tables", 0) + 1
    session["ratio_table"] = RatioTable(base, f"ratios-{session['ratio_tables']}")
    return session["ratio_table"]


# ---------------------------------------------------------------- between the runs of a script


def warn(text: str) -> None:
    """Show a warning at the top of the page, until the next run of the script."""
    begin()
    if text not in session["warnings"]:
        session["warnings"].append(text)


def has_warnings() -> bool:
    """Whether there is a warning that no page has shown yet."""
    begin()
    return bool(session["warnings"])


def warnings() -> list[str]:
    """The warnings since the last call."""
    begin()
    texts = session["warnings"]
    session["warnings"] = []
    return list(texts)


def set_trouble(error: PruningError | None) -> None:
    """What is wrong with the workspace as a whole: the page says it once, at the top."""
    session["trouble"] = error


def trouble() -> PruningError | None:
    return session.get("trouble")


def take_notices(notices: Sequence[str], old: int) -> Sequence[str]:
    """Those that this tab has not shown yet. old: how many a tab that was just opened skips."""
    before = session.setdefault("notices", old)
    session["notices"] = len(notices)
    return notices[before:]


def expect(key: str) -> None:
    """The page waits for a job: the frame draws it anew when that ends."""
    begin()
    session["expected"].add(key)


def unexpect(key: str) -> None:
    """Only a part of the page waits for it, and sees to itself."""
    session["expected"].discard(key)


def expected() -> set[str]:
    begin()
    return set(session["expected"])


def replace_watched_study(id: str) -> str | None:
    """This tab looks at that study now; the one that it looked at before, None for the first."""
    begin()
    before: str | None = session["study"]
    session["study"] = id
    return before


_thread = local()
"""What a thread draws, once `begin` was called for it."""


def begin() -> None:
    """Fill what a new tab starts with: HOME, nothing to undo."""
    drawing = get_script_run_ctx(suppress_warning=True)
    if drawing is not None and getattr(_thread, "drawing", None) is drawing:
        return  # asked for at every control
    _thread.drawing = drawing
    if "recipe" not in session:
        session.update(recipe=HOME, undo=[], redo=[], layer=None, run=None, picked=[])
        session.update(warnings=[], expected=set(), upload=None, uploads=0, data_upload=None)
        session.update(written={}, written_before={})
        session.update(lottery_recipe=LOTTERY_RECIPE, seeds=SEEDS, lottery_set=None)
        session.update(marked=[])
        session.update(adjustment=None, ratio_share=None, fill=None, study=None)
        session.update(plan=None, sweep=None, point=None, locks=Locks(), room=None)
        session.update(made_locks=None)
        session.update(place=None, wanted_page=None, reached={}, predictions={}, unit=None)
        session.update(by_default={}, view=None, projected=None)
        kept = st.context.cookies.get(LAYOUT_COOKIE)
        session["layout"] = SIMPLE if kept == SIMPLE else FULL
        session.update(target=None)


def take_address() -> None:
    """Once at the start of each run of the script: read the address, and complete it.

    Going to another page empties the address; a link or the Back button fills it. What we wrote
    last tells both from our own writing.
    """
    new_tab = "recipe" not in session
    begin()
    look_into_room()
    if CODE in st.query_params:
        # Out of the address at once: it would be in every link that is copied from there.
        session["class_code"] = st.query_params.pop(CODE)[:100]
        session["class_asked"] = True
    session["shown"] = None  # from now until `note_shown`
    session["link_of_run"] = new_tab and "run" in st.query_params and _is_of_run()
    session["expected"] = set()
    session["link_has_recipe"] = "r" in st.query_params
    session["by_default"] = {}
    # All keys are taken before the first is read: a reader writes to the address.
    values = {key: st.query_params.get(key) for key in READERS}
    for key, value in values.items():
        if value is None:
            _write(key, session["written"].get(key))
        elif _is_late(key, value):
            _write(key, session["written"][key])
        elif value != session["written"].get(key):
            READERS[key](value)
    if new_tab:
        session["undo"] = []  # there is nothing before a link
    _write("r", _encoded())


def _is_of_run() -> bool:
    """Whether the address is meant for its run: the pages complete theirs with it as well."""
    room = st.query_params.get("room")
    # Our own addresses of the start page hold the recipe beside the run.
    return room in ("run", "prune") or (room is None and "r" not in st.query_params)


def opened_by_link_of_run() -> bool:
    """Whether this tab was just opened by a link to a run, or loaded anew there."""
    return bool(session.get("link_of_run"))


def requested_page() -> str | None:
    """The page that the address names as `?room=`, once: the start page opens it. An address with
    the code of a class names that page.
    """
    if session.pop("class_asked", False):
        return "classroom"
    return st.query_params.pop("room", None)


def widgets_in_address() -> dict[str, list[str]]:
    """What controls of pages keep in the address by themselves, where they are not as usual: those
    with `bind="query-params"`, each under its own key.
    """
    keys = [key for key in st.query_params if key not in READERS and key != "room"]
    return {key: st.query_params.get_all(key) for key in keys}


def link(leave_out: Iterable[str] = (), **more: str) -> str:
    """The address that reopens this state: also what the page shows by itself, and its controls.

    leave_out: keys of the address; more: further ones.
    """
    ours = {key: value for key, value in session["written"].items() if value}
    parts = {**session["by_default"], **ours, **widgets_in_address()}
    kept = {key: value for key, value in parts.items() if key not in leave_out}
    return f"{(st.context.url or '').split('?')[0]}?{urlencode({**kept, **more}, doseq=True)}"


def _is_late(key: str, value: str) -> bool:
    """Whether this is only what the address held before our last writing.

    A browser that has not heard of it yet sends the old address along, whatever it asks for.
    """
    before, when = session["written_before"].get(key, (None, 0.0))
    return value == before and time.monotonic() - when < LATE


def _write(key: str, value: str | None) -> None:
    before = session["written"].get(key)
    if value != before:
        session["written_before"][key] = (before, time.monotonic())
    session["written"][key] = value
    if value:
        if st.query_params.get(key) != value:
            st.query_params[key] = value
    elif key in st.query_params:
        del st.query_params[key]


def _read_recipe(text: str) -> None:
    session["written"]["r"] = text
    try:
        put(decode(text))
    except PruningError as error:
        warn(
            f"The address holds a recipe that cannot be followed: {error} "
            "The current recipe stays as it was."
        )


def _read_lottery_recipe(text: str) -> None:
    session["written"]["t"] = text
    try:
        session["lottery_recipe"] = decode(text)
    except PruningError as error:
        warn(
            f"The address holds a lottery that cannot be followed: {error} "
            "The settings stay as they were."
        )


def _read_lottery_set(text: str) -> None:
    open_lottery_set(_id_of("set of runs", text))


def _read_plan(text: str) -> None:
    session["written"]["plan"] = text
    try:
        session["plan"] = decode_plan(text)
    except PruningError as error:
        warn(f"The address holds a plan that cannot be followed: {error} The plan stays as it was.")


def _read_target(text: str) -> None:
    session["written"]["target"] = text
    try:
        session["target"] = decode_target(text)
    except PruningError as error:
        warn(
            f"The address holds a target that cannot be followed: {error} "
            "The target stays as it was."
        )


def _read_sweep(text: str) -> None:
    open_sweep(_id_of("sweep", text))


def _read_lesson(text: str) -> None:
    session["written"]["lesson"] = text
    _enter(text, st.query_params.get("step") or "1")


def _read_step(text: str) -> None:
    session["written"]["step"] = text
    now = place()
    if now is not None and text != str(now.step):
        _enter(now.lesson, text)


def _enter(name: str, number: str) -> None:
    """A lesson's step from an address, which brings a recipe of its own or takes the step's."""
    try:
        at = int(number) if number.isdecimal() and len(number) < 4 else 0
        enter(name, at, preset=not session["link_has_recipe"])
    except PruningError as error:
        warn(f"The address names a lesson that cannot be opened: {error}")
        leave_lesson()


def _read_locked(text: str) -> None:
    session["written"]["lock"] = text
    session["locks"] = replace(
        session["locks"], locked=_controls_of("lock", text), source=LOCKED_BY_LINK
    )
    _locks_changed()


def _read_hidden(text: str) -> None:
    session["written"]["hide"] = text
    session["locks"] = replace(
        session["locks"], hidden=_controls_of("hide", text), source=LOCKED_BY_LINK
    )
    _locks_changed()


def _controls_of(key: str, text: str) -> frozenset[str]:
    """The controls in an address, with a warning of names that are none."""
    known, unknown = locks.names(text)
    if unknown:
        warn(
            f"The address has {key}={_quoted(unknown[0])}, which is no control: those are "
            f"{', '.join(locks.CONTROLS)}."
        )
    return frozenset(known)


def _read_point(text: str) -> None:
    session["written"]["point"] = text
    level, _, technique = text[:300].partition(" ")
    try:
        session["point"] = (technique, float(level)) if technique else None
    except ValueError:
        session["point"] = None
    if session["point"] is None:
        warn(f"The address names a point {_quoted(text)}, which is none: showing none.")


def _read_seeds(text: str) -> None:
    count = int(text) if text.isdecimal() and len(text) < 4 else 0
    if 1 <= count <= MOST_SEEDS:
        session["written"]["seeds"] = text
        session["seeds"] = count
    else:
        warn(f"The address asks for {_quoted(text)} seeds, but a lottery has 1 to {MOST_SEEDS}.")


def _read_view(text: str) -> None:
    set_projector(text == PROJECTOR)


def _read_projected(text: str) -> None:
    project(text[:200])


def _read_layout(text: str) -> None:
    session["written"]["layout"] = text
    session["layout"] = SIMPLE if text == SIMPLE else FULL


def _read_layer(text: str) -> None:
    session["written"]["layer"] = text
    session["layer"] = text[:200]


def _read_unit(text: str) -> None:
    session["written"]["unit"] = text
    number = text.isdecimal() and len(text) < 10
    if text != "first" and not number:
        warn(f"The address names a unit {_quoted(text)}, which is no number: showing the first.")
    session["unit"] = int(text) if number else FIRST


def _read_run(text: str) -> None:
    open_run(_id_of("run", text))


def _id_of(what: str, text: str) -> str | None:
    """The id in an address; None, with a warning, for a text that cannot be one."""
    if ID.fullmatch(text):
        return text
    warn(
        f"The address names a {what} {_quoted(text)}, which cannot be the name of one: "
        "showing none."
    )
    return None


def _read_picked(text: str) -> None:
    parts = text.split(",")
    ids = [id for id in parts[:50] if ID.fullmatch(id)]
    if len(ids) < len(parts):
        warn("Some of the runs in the address cannot be names of runs: they are left out.")
    pick(ids)


READERS = {
    "r": _read_recipe,
    "layer": _read_layer,
    "unit": _read_unit,
    "run": _read_run,
    "c": _read_picked,
    "t": _read_lottery_recipe,
    "set": _read_lottery_set,
    "plan": _read_plan,
    "sweep": _read_sweep,
    "point": _read_point,
    "seeds": _read_seeds,
    "layout": _read_layout,
    "view": _read_view,
    "chart": _read_projected,
    "lesson": _read_lesson,
    "step": _read_step,
    "target": _read_target,
    "lock": _read_locked,
    "hide": _read_hidden,
}
"""Keys of the address, in the order they are read: the layer after the recipe, which clears it; a
point after its sweep, a chart after its view, likewise. Locks
after the recipe, which they would keep as it was.
"""


def _quoted(text: str) -> str:
    """Text from an address, short: it may be anything."""
    return f"“{text[:60]}…”" if len(text) > 60 else f"“{text}”"


# ---------------------------------------------------------------- the link


def encode(wanted: Recipe) -> str:
    """A recipe as the text of a link: what differs from the defaults, as compressed base64."""
    return _packed({"version": VERSION, **wanted.short()})


def decode(text: str) -> Recipe:
    """The recipe of a link. Raises RecipeError for any text that is none."""
    # Links of version 1 did not carry it.
    return _unpacked(text, lambda data: Recipe.from_dict({"version": 1, **data}))


def encode_plan(wanted: Plan) -> str:
    return _packed(wanted.to_dict())


def decode_plan(text: str) -> Plan:
    """The plan of a link. Raises RecipeError for any text that is none."""
    return _unpacked(text, Plan.from_dict)


def encode_target(wanted: Target) -> str:
    return _packed(wanted.to_dict())


def decode_target(text: str) -> Target:
    """The target of a link. Raises RecipeError for any text that is none."""
    return _unpacked(text, Target.from_dict)


def _packed(values: dict[str, Any]) -> str:
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def _unpacked(text: str, made: Callable[[Any], Made]) -> Made:
    """What a link carries, made of its JSON. Raises RecipeError for any text that carries none."""
    if len(text) > LONGEST_LINK:
        raise RecipeError(
            f"it has {len(text):,} characters, and a link has at most {LONGEST_LINK:,}; "
            "copy the whole link again."
        )
    try:
        padded = text + "=" * (-len(text) % 4)
        compressed = base64.b64decode(padded, altchars=b"-_", validate=True)
        # A decompressobj stops at a limit, which zlib.decompress does not.
        data = zlib.decompressobj().decompress(compressed, LARGEST_RECIPE)
        return made(json.loads(data))
    except RecipeError:
        raise
    except (binascii.Error, zlib.error, ValueError, TypeError, RecursionError):
        raise RecipeError("it is damaged or cut off; copy the whole link again.") from None
