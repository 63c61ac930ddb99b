"""A workbench with a passphrase, as a visitor meets it: the link that was asked for opens after."""

from __future__ import annotations

import fcntl
import re
from collections.abc import Iterator

import pytest
from e2e import served
from e2e.conftest import complaints
from e2e.served import READY, Served
from e2e.test_access import serious
from playwright.sync_api import Browser, ViewportSize, expect

from dashboard import access, state, visitors
from pruning.recipe import Recipe
from pruning.runs.store import Store

WORD = "a long passphrase"


OWNER = "0123456789abcdef" * 2


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Both tests share it: a server takes seconds to start.

    It has no workers, which would take longer: for it, these tests are its pool.
    """
    variables = {access.PASSPHRASE: WORD, visitors.OWNER: OWNER}
    home = tmp_path_factory.mktemp("guarded") / "workspace"
    home.mkdir()
    with (home / "pool.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = served.serve(home, **variables)
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
    assert serious(page, "light") == [] and context.cookies() == []

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


def test_a_run_is_for_her_to_stop_who_started_it(browser: Browser, guarded: Served) -> None:
    """By its link another visitor reads it."""
    size: ViewportSize = {"width": 1280, "height": 800}
    anna, ben = browser.new_context(viewport=size), browser.new_context(viewport=size)
    for context in (anna, ben):
        context.request.post(
            guarded.url + access.ENTER_PATH, form={"passphrase": WORD, "then": "/"}
        )
        context.request.get(guarded.url)
    kept = {one["name"]: one for one in anna.cookies()}[visitors.COOKIE]
    assert kept["httpOnly"]
    spec = Recipe(model="digits-mlp", sparsity=0.5, epochs=10_000).to_dict()
    run = Store(guarded.home).submit("run", spec, visitor=visitors.named(kept["value"]))
    for context in (anna, ben):
        page = context.new_page()
        page.goto(f"{guarded.url}/?room=prune&run={run}")
        heading = page.get_by_role("heading", name=f"Run {run[:6]}")
        expect(heading).to_be_visible(timeout=60_000)
        close = page.get_by_role("button", name="Close")
        expect(close).to_be_visible(timeout=60_000)
        # By their keys: studies that the page waits for have a Stop of their own.
        stop = page.locator(f".st-key-stop-{run}, .st-key-strip-stop-{run}")
        if context is anna:
            expect(stop.first).to_be_visible()
        else:
            expect(stop).to_have_count(0)
    anna.close()
    ben.close()
