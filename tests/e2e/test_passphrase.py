"""A workbench with a passphrase, as a visitor meets it: the link that was asked for opens after."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e import served
from e2e.conftest import complaints
from e2e.served import READY, Served
from e2e.test_access import serious
from playwright.sync_api import Browser, expect

from dashboard import access, state
from pruning.recipe import Recipe

WORD = "a long passphrase"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    running = served.serve(tmp_path / "workspace", **{access.PASSPHRASE: WORD})
    yield running
    running.end()


def test_the_passphrase_lets_a_visitor_in_to_the_link(browser: Browser, guarded: Served) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors = complaints(page)
    recipe = Recipe(model="digits-mlp", sparsity=0.77)
    page.goto(f"{guarded.url}/structure?r={state.encode(recipe)}")
    box = page.get_by_label("Passphrase")
    expect(box).to_be_focused()
    assert page.locator("script").count() == 0

    box.fill("another one")
    page.get_by_role("button", name="Enter").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the passphrase.")
    assert serious(page) == [] and context.cookies() == []

    box.fill(WORD)
    box.press("Enter")
    page.wait_for_url(re.compile("r="))
    page.wait_for_selector(READY, state="attached")
    expect(page.get_by_role("heading", level=1)).to_contain_text("channels")
    address = state.decode(re.findall(r"[?&]r=([^&]+)", page.url)[0])
    assert (address.model, address.sparsity) == ("digits-mlp", 0.77)
    (cookie,) = [one for one in context.cookies() if one["name"] == access.COOKIE]
    assert cookie["httpOnly"]
    context.close()
    # Browsers note that a page was answered with 401, which is what it is for.
    assert [line for line in errors if "401" not in line] == []
