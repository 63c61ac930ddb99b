"""The glossary: every word of the forms is in it once, with a paper and a place that are real."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pages import opened, texts

from dashboard import glossary, locks, words
from dashboard.views import _recipe_panel
from pruning import registry
from pruning.recipe import Recipe
from pruning.runs import pool

EVERY = [*glossary.terms(), *glossary.techniques()]
NAMES = [f"{term.group}: {term.name}" for term in EVERY]


def test_every_field_of_the_recipe_and_every_control_is_explained_once() -> None:
    fields = [field for term in glossary.terms() for field in term.fields]
    assert sorted(fields) == sorted(Recipe.__dataclass_fields__)
    assert set(fields) >= set(locks.CONTROLS) - {locks.RUN}


def test_numbers_and_helps_of_the_recipes_form_are_the_glossarys() -> None:
    assert all(glossary.of_field(field) for field in _recipe_panel.NUMBERS)
    asked = re.findall(r'help_of\(\s*"([\w ]+)"', inspect.getsource(_recipe_panel))
    assert len(asked) > 5 and all(_recipe_panel.help_of(name) for name in asked)


def test_techniques_come_from_the_registry_alone() -> None:
    known = [entry for kind in registry.KINDS for entry in registry.entries(kind).values()]
    assert [(term.line, term.where) for term in glossary.techniques()] == [
        (entry.title, entry.module) for entry in known
    ]
    written = {term.name.lower() for term in glossary.terms()}
    assert not written & {words.capitalized(entry.name).lower() for entry in known}


@pytest.mark.parametrize("term", EVERY, ids=NAMES)
def test_a_term_is_one_line_with_real_links(term: glossary.Term) -> None:
    assert term.line == " ".join(term.line.split()) and term.line.endswith(".")
    assert term.group in (*glossary.GROUPS, *glossary.KINDS.values())
    if term.paper:
        address = urlsplit(term.paper)
        assert address.scheme == "https" and "." in address.netloc and len(address.path) > 3
        assert re.fullmatch(r"[\w.:/?=&-]*\w", term.paper)
        if address.netloc == "arxiv.org":
            assert re.fullmatch(r"/abs/\d{4}\.\d{4,5}", address.path)
    spec = importlib.util.find_spec(term.where)
    assert spec is not None and spec.origin
    assert ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8")))


def test_formulas_are_whole() -> None:
    formulas = [term.formula for term in glossary.terms() if term.formula]
    assert len(formulas) > 10
    for formula in formulas:
        assert formula.count("{") == formula.count("}")
        assert len(re.findall(r"\\left\b", formula)) == len(re.findall(r"\\right\b", formula))


def test_the_page_has_all_of_them_and_finds_one(home, monkeypatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    page = opened("glossary")
    assert not page.exception
    shown = texts(page)
    assert all(words.plain(term.name).replace("\u00a0", " ") in shown for term in EVERY)
    formulas = [term.formula for term in glossary.terms() if term.formula]
    assert [latex.value.strip().strip("$").strip() for latex in page.latex] == formulas
    page.text_input(key="term").set_value("lottery ticket").run()
    assert "becomes as accurate as the whole" in texts(page)
    assert "SynFlow" not in texts(page)
    page.text_input(key="term").set_value("<b>nothing").run()
    assert not page.exception and len(page.info) == 1


def test_labels_find_their_word() -> None:
    assert glossary.of_label("Weights kept") == glossary.of_label("Weights, compact")
    assert "dense and pruned in turns" in str(glossary.of_label("Latency"))
    assert glossary.of_label("Something else") is None


EXPLAINED = ("sensitivity", "sweeps", "compare", "advisor")
"""Pages that say on hover what their words mean, beside the recipe's form and a run's result."""


@pytest.mark.parametrize("name", EXPLAINED)
def test_what_pages_explain_on_hover_is_in_the_glossary(name: str) -> None:
    tree = ast.parse((Path(_recipe_panel.__file__).parent / f"{name}.py").read_text("utf-8"))
    asked: dict[str, list[str]] = {"line": [], "of_field": [], "question": []}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            words = [each.value for each in call.args if isinstance(each, ast.Constant)]
            asked.setdefault(call.func.attr, []).extend(map(str, words))
    assert all(glossary.of_field(field) for field in asked["of_field"])
    assert all(glossary.line(word) for word in [*asked["line"], *asked["question"][1:]])


def test_a_heading_and_its_controls_explain_their_words(home: Path) -> None:
    page = opened("advisor")
    (title,) = page.title
    for word in ("Dense", "Compact model", "Interval"):
        assert f"**{word}:** {glossary.line(word)}" in title.help
    helps = [box.help for box in (*page.number_input, *page.selectbox, *page.toggle)]
    assert {glossary.line("Tolerated drop"), glossary.line("Fine-tuning")} <= set(helps)
