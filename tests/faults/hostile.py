"""Hostile input: recipes and links that somebody made to break the page, and what comes of them.

    python3 run.py faults            this among others
    PYTHONPATH=tests:. python -m faults.hostile [recipes] [links]

700 recipes are read, put into words and opened as links on a page; 10,000 links are sound ones with
bytes changed, and JSON that is no recipe. Nothing may be uncaught, and no text may become a link.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import MessageToDict

from dashboard import state, words
from pruning import registry
from pruning.errors import PruningError
from pruning.recipe import BUDGETS, CHOICES, ONE_STEP, Recipe

if TYPE_CHECKING:
    from streamlit.testing.v1 import AppTest

EVIL = "evil.example"
TEXTS = (
    f"![picture](http://{EVIL}/p.png)",
    f"[link](http://{EVIL}/login)",
    f"<http://{EVIL}/auto> http://{EVIL}/bare HTTPS://{EVIL}/upper",
    f"www.{EVIL}/bare WWW.{EVIL}",
    f"someone@{EVIL} mailto:someone@{EVIL}",
    f"a&#64;{EVIL} &#104;ttp://{EVIL} &lt;a href={EVIL}&gt;",
    f"<a href='http://{EVIL}'>a</a><img src=http://{EVIL}/i.png onerror=alert(1)>",
    f"[a]: http://{EVIL} '{EVIL}' [a]",
    r"\[escaped](http://evil.example) \\![twice](http://evil.example/p.png)",
    ":red[red] :blue-background[blue] :small[small] :badge[badge] :material/home: :streamlit:",
    ":skull: :smile: :+1: $\\frac{evil}{1}$ $$evil$$ `code` **bold** ~~gone~~",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "| a | b |",
    "\x00\x1b[31m \u202eright to left\u202c \u2066isolated",
    "../../etc/passwd",
    "'; DROP TABLE jobs; --",
    "{evil} %s %(evil)s {0.__class__}",
    "ärger 模型 🙂",
    "x" * 900,
)
"""Each may be the name of a model, a layer, an option, a file."""

HOSTILE = " ".join(text for text in TEXTS if len(text) < 200)
"""All of them in one name."""

MODELS = (*TEXTS, *(f"{kind}:{'a' * 900}" for kind in ("upload", "run", "torchvision", "other")))

SURROGATE = "\ud800"
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    10**401,
    -(10**401),
    2**63,
    1e308,
    -1e308,
    1e-320,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    [],
    {},
    [[[[]]]],
    {"a": {"b": {}}},
    [None],
    [1, 2],
    SURROGATE,
    [SURROGATE],
    {SURROGATE: 0.5},
    "y" * 5000,
    *TEXTS,
)
"""What a field may hold that expects something else."""

ACTIVE = {
    "picture": re.compile(r"(?<!\\)!\["),
    "link": re.compile(rf"(?<!\\)\]\([^)]*{EVIL}"),
    "link by reference": re.compile(r"(?<!\\)\]:"),
    "autolink": re.compile(rf"://[-\w.]*{EVIL}|www\.{EVIL}", re.IGNORECASE),
    "mail": re.compile(rf"@{EVIL}"),
    "tag": re.compile(r"(?<!\\)<(?:a|img|http)\b"),
    "entity": re.compile(r"(?<!\\)&(?:#\d+|\w+);"),
    "colour": re.compile(r"(?<!\\):(?:red|blue-background|badge)\["),
    "icon": re.compile(r":material/home:|:streamlit:|:skull:|:smile:"),
    "formula": re.compile(r"(?<!\\)\$(?:\\\\frac|evil|\$)"),
    "code": re.compile(r"(?<!\\)`code"),
    "control": re.compile("[\x00\x1b\u202e\u2066\ud800-\udfff]"),
}
"""What of the texts above would be more than text in a string that is shown as Markdown."""

MARKDOWN = {
    "markdown": ("body", "help"),
    "heading": ("body", "help"),
    "alert": ("body",),
    "expandable": ("label",),
    "popover": ("label", "help"),
    "metric": ("label", "delta", "help"),
    "imgs": ("caption",),
    "progress": ("text",),
    "spinner": ("text",),
    "pageLink": ("label", "help"),
    "linkButton": ("label", "help"),
    "tab": ("label",),
    "dialog": ("title",),
}
"""Kind of element -> fields that Streamlit's client reads as Markdown; of all others these."""
WIDGET = ("label", "help")
OPTIONS = ("buttonGroup", "radio")
"""Widgets whose options are Markdown too; those of others are text."""


# ---------------------------------------------------------------- recipes


def recipes(count: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Recipes as JSON could hold them: each option out of its range once, then at random."""
    made = 0
    for made, recipe in enumerate(_options_out_of_range(), start=1):
        if made > count:
            return
        yield recipe
    rng = random.Random(seed)
    fields = [field.name for field in dataclasses.fields(Recipe)]
    for _ in range(count - made):
        recipe = _plausible(rng)
        recipe["exclude"] = rng.sample(TEXTS, rng.randint(0, 3))
        if rng.random() < 0.3:
            recipe["scope"] = "manual"
            recipe["ratios"] = {text: rng.random() for text in rng.sample(TEXTS, 3)}
        # Half of them are sound but for their names, so that pages show what they hold.
        if rng.random() < 0.5:
            for name in rng.sample(fields, rng.randint(1, 3)):
                recipe[name] = rng.choice(VALUES)
        elif rng.random() < 0.1:
            recipe[rng.choice(TEXTS)] = 1
        yield recipe


def _options_out_of_range() -> Iterator[dict[str, Any]]:
    for kind in registry.KINDS:
        field = "options" if kind == "criterion" else f"{kind}_options"
        for name, entry in registry.entries(kind).items():
            for option in entry.options:
                values: list[Any] = [10**401, float("nan"), SURROGATE, None, []]
                if option.range is not None:
                    values += [option.range.low - 1, option.range.high * 2 + 1, 10**9]
                for value in values:
                    yield {"model": "digits-cnn", kind: name, field: {option.name: value}}


def _plausible(rng: random.Random) -> dict[str, Any]:
    criterion = rng.choice(registry.names("criterion"))
    granularities = registry.names("granularity")
    fitting = [name for name in granularities if registry.misfit(criterion, name) is None]
    recipe: dict[str, Any] = {
        "model": rng.choice(("digits-cnn", "digits-mlp", "torchvision:resnet18", *MODELS)),
        "criterion": criterion,
        "granularity": rng.choice(fitting),
        "scope": rng.choice(registry.names("scope")),
        "sparsity": rng.random(),
        "budget": rng.choice(BUDGETS),
    }
    for name, known in CHOICES.items():
        # Rewinding asks for other fields, too.
        if name != "rewind" and rng.random() < 0.2:
            recipe[name] = rng.choice(known)
    return recipe


# ---------------------------------------------------------------- links


def link(recipe: Any) -> str:
    """The text of an address that holds this, whether or not it is a recipe."""
    text = recipe if isinstance(recipe, str) else json.dumps(recipe)
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


def links(count: int, seed: int = 0) -> Iterator[str]:
    """Sound links with characters changed, cut or repeated, and JSON with bytes changed."""
    rng = random.Random(seed)
    sound = [state.encode(recipe) for recipe in (state.HOME, state.LOTTERY_RECIPE, Recipe())]
    deep = ["[" * 10_000 + "]" * 10_000, '{"a":' * 10_000, '{"lr": ' + "9" * 5000 + "}"]
    yield from map(link, deep)
    for _ in range(count - len(deep)):
        if rng.random() < 0.5:
            yield "".join(_changed(rng, list(rng.choice(sound))))
        else:
            text = list(json.dumps({"version": 2, **state.HOME.short(), "exclude": [HOSTILE]}))
            yield link("".join(_changed(rng, text)))


LETTERS = [chr(code) for code in (*range(32, 127), 0, 10, 0xE4, 0x202E, 0x1F642)]


def _changed(rng: random.Random, text: list[str]) -> list[str]:
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(text)) if text else 0
        match rng.randrange(4):
            case 0:
                text[place : place + 1] = rng.choice(LETTERS)
            case 1:
                text.insert(place, rng.choice(LETTERS))
            case 2:
                del text[place : place + rng.randint(1, 9)]
            case 3:
                text[place:place] = text[place : place + 20] * rng.randint(1, 3)
    return text


# ---------------------------------------------------------------- what comes of them


def read(recipe: dict[str, Any]) -> Recipe | None:
    """The recipe, or None where it was refused in a sentence. Raises whatever else happens."""
    try:
        made = Recipe.from_dict(recipe)
    except PruningError as error:
        _sentence(str(error))
        return None
    # All that is a function of a recipe, for it was taken.
    assert state.decode(state.encode(made)) == made
    assert Recipe.from_json(made.to_json()) == made and len(made.id) == 12
    in_words = [words.sentence(made), words.label(made, None)]
    in_words += [words.value(name, getattr(made, name)) for name in ONE_STEP]
    in_words += [str(difference) for difference in words.differences(Recipe(), made)]
    for text in in_words:
        found = active(words.plain(text))
        assert not found, (found, text)
    return made


def follow(text: str) -> bool:
    """Whether a link was taken; False where it was refused. Raises whatever else happens."""
    try:
        state.decode(text)
    except PruningError as error:
        _sentence(str(error))
        return False
    return True


def _sentence(text: str) -> None:
    """What a page can show, short and encodable."""
    assert 10 < len(text) < 3000, text
    words.plain(text).encode()


def active(text: str) -> list[str]:
    """What a string would be, shown as Markdown, beyond text."""
    return [name for name, pattern in ACTIVE.items() if pattern.search(text)]


def violations(page: AppTest) -> list[str]:
    """What of a page is more than text, and parts of it that failed."""
    found = [f"exception: {error.value}" for error in page.exception]
    found += [e.value for e in page.error if "part of the page failed" in str(e.value)]
    for chart in page.get("plotly_chart"):
        tags = re.findall(r"<(?:a|img)\b[^>]*", chart.proto.spec)
        found += [f"chart: {tag}" for tag in tags]
    for kind, data in _elements(page._tree):
        for field in _markdown(kind, data):
            names = active(field)
            if names:
                found.append(f"{kind}: {', '.join(names)} in {field[:200]!r}")
    return found


def _elements(block: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for child in block.children.values():
        proto = getattr(child, "proto", None)
        if proto is not None:
            yield str(proto.DESCRIPTOR.name), MessageToDict(proto)
        if hasattr(child, "children"):
            yield from _elements(child)


def _markdown(kind: str, data: dict[str, Any]) -> Iterator[str]:
    """Every string of an element that the client reads as Markdown."""
    kind = kind[:1].lower() + kind[1:]
    for name, value in _fields(data):
        own = MARKDOWN.get(kind, WIDGET)
        is_option = kind in OPTIONS and name in ("options", "content")
        if isinstance(value, str) and (name in own or is_option):
            yield value


def _fields(data: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _fields(value, key)
    elif isinstance(data, list):
        for value in data:
            yield from _fields(value, name)
    else:
        yield name, data


# ---------------------------------------------------------------- the sweep

PAGES = ("model", "inspect", "sensitivity", "prune", "lottery", "structure", "criteria", "compare")


def main(recipe_count: int = 700, link_count: int = 10_000) -> int:
    """Print how many were refused, taken and opened; 1 where one was uncaught or became a link."""
    os.environ["PRUNING_HOME"] = tempfile.mkdtemp(prefix="pruning-hostile-")
    from pruning.runs import pool
    from tests.pages import opened

    # Nothing is worked on: what is looked at is what the page makes of the text.
    setattr(pool, "ensure", lambda *_: False)  # noqa: B010
    counts: Counter[str] = Counter()
    for number, recipe in enumerate(recipes(recipe_count)):
        _count(counts, "recipes", lambda recipe=recipe: read(recipe) is not None, recipe)
        view = PAGES[number % len(PAGES)]
        found = _opened(opened, view, link(recipe))
        counts["pages opened"] += 1
        if found:
            counts["pages with more than text"] += 1
            print(f"{view}: {found[:2]} of {shown(recipe)}", flush=True)
    for text in links(link_count):
        _count(counts, "links", lambda text=text: follow(text), text)
    print(", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
    bad = counts["pages with more than text"]
    bad += sum(count for name, count in counts.items() if "uncaught" in name)
    print("0 uncaught, 0 links" if not bad else f"{bad} failed")
    return 1 if bad else 0


def sweep() -> str:
    """All of it, in a process of its own: a page that is opened here keeps its workspace."""
    from faults.stage import Broken

    done = subprocess.run(
        [sys.executable, "-m", "faults.hostile"], capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    if done.returncode:
        raise Broken("; ".join(lines[-4:])[:1000] or done.stderr[-1000:])
    return lines[-2]


CASES = {"700 hostile recipes and 10,000 links": sweep}


def _count(counts: Counter[str], what: str, taken: Any, given: object) -> None:
    try:
        counts[f"{what} taken" if taken() else f"{what} refused"] += 1
    except Exception as error:
        counts[f"{what} uncaught"] += 1
        print(f"{what}: {type(error).__name__}: {str(error)[:200]} of {shown(given)}", flush=True)


def _opened(opened: Any, view: str, text: str) -> list[str]:
    try:
        return violations(opened(view, r=text))
    except Exception as error:
        return [f"{type(error).__name__}: {str(error)[:300]}"]


def shown(value: object) -> str:
    return ascii(value)[:300]


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
