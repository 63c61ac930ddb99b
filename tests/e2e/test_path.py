"""The path from a cold start to two compared runs, as a person takes it, in both themes."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from e2e import steps
from e2e.conftest import picture
from e2e.served import Served
from playwright.sync_api import Page, expect


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state_dict of a digits-mlp as DataParallel names it, in the wrapper trainers write."""
    import torch

    import sample_models

    path = tmp_path_factory.mktemp("upload") / "epoch-3.pt"
    state = sample_models.build("digits-mlp", seed=3).state_dict()
    torch.save(
        {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path
    )
    return path


@pytest.fixture(scope="session")
def whole_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    path = tmp_path_factory.mktemp("refused") / "whole.pt"
    torch.save(torch.nn.Sequential(torch.nn.Linear(64, 10)), path)
    return path


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_from_a_cold_start_to_two_compared_runs(
    app: Served, tab: Page, scheme: str, checkpoint: Path, whole_module: Path
) -> None:
    steps.open_at(tab, app.url)
    question = "How much of the current model can be pruned"
    expect(tab.get_by_role("heading", name=question)).to_be_visible()
    picture(tab, f"model-{scheme}")
    steps.choose_model(tab, "digits-mlp")
    upload_own_weights(tab, checkpoint, whole_module, scheme)
    steps.choose_model(tab, "digits-mlp")

    steps.go(tab, "Inspect")
    picture(tab, f"inspect-{scheme}")
    steps.go(tab, "Prune")
    turn_the_slider(tab)
    first = run_to_its_end(tab, scheme)
    reopen(tab, first)
    second = watch_and_stop_another(tab, scheme)
    third = run_at_random(tab)
    compare(tab, first, third, second, scheme)


def upload_own_weights(tab: Page, checkpoint: Path, whole_module: Path, scheme: str) -> None:
    steps.choose_radio(tab, "Your own weights")
    box = tab.get_by_role("combobox", name="Architecture to fill")
    box.fill("digits-mlp")
    box.press("Enter")
    steps.settled(tab)
    steps.upload(tab, checkpoint)
    # A process that reads files is started for it.
    accepted = tab.get_by_text("epoch-3.pt is the current model")
    expect(accepted).to_be_visible(timeout=60_000)
    expect(tab.get_by_test_id("stAlert").filter(has_text="module.")).to_be_visible()
    steps.settled(tab)
    expect(steps.sidebar(tab).get_by_role("heading", name="epoch-3.pt")).to_be_visible()
    steps.upload(tab, whole_module)
    refusal = tab.get_by_test_id("stAlert").filter(has_text="whole.pt was refused")
    expect(refusal).to_be_visible()
    expect(refusal).to_contain_text("state_dict")
    steps.settled(tab)
    picture(tab, f"upload-{scheme}")
    steps.choose_radio(tab, "Samples")


def turn_the_slider(tab: Page) -> None:
    slider = steps.slider(tab)
    before, address = steps.weights_kept(tab), tab.url
    steps.drag_slider(tab, 0.5)
    kept = tab.locator('.dial .large[data-kind="weights"]')
    expect(kept).not_to_have_text(before)  # while the button is down
    tab.mouse.up()
    tab.wait_for_function("before => location.href !== before", arg=address)
    steps.settled(tab)
    before, address, share = steps.weights_kept(tab), tab.url, slider.input_value()
    # One press: of several, each pause on a slow machine is a release.
    steps.key(
        tab,
        "PageDown",
        # before anything has answered
        lambda: expect(kept).not_to_have_text(before, timeout=steps.PRESSED),
        at=slider,
    )
    tab.wait_for_function("before => location.href !== before", arg=address)
    steps.settled(tab)
    assert slider.input_value() != share
    # A release draws only parts of the page anew: all that shows the share is among them.
    removed = f"{slider.get_attribute('aria-valuetext')}".split(" removed")[0]
    expect(steps.sidebar(tab).get_by_text(f"Remove the {removed}")).to_be_visible()
    number = tab.get_by_role("spinbutton", name="Remove, %", exact=True)
    expect(number).to_have_value(removed.removesuffix(" %").strip())
    moved = steps.weights_kept(tab)
    steps.sidebar(tab).get_by_role("button", name="Undo").click()
    expect(slider).to_have_value(share)
    steps.sidebar(tab).get_by_role("button", name="Redo").click()
    expect(slider).not_to_have_value(share)
    steps.settled(tab)
    assert steps.weights_kept(tab) == moved


def run_to_its_end(tab: Page, scheme: str) -> str:
    steps.set_number(tab, "Fine-tuning epochs", "2")
    run = steps.start_run(tab)
    line = tab.locator(f".st-key-ended-{run}")
    expect(line).to_contain_text("%")
    steps.settled(tab)
    picture(tab, f"prune-{scheme}")
    result = tab.get_by_role("heading", name=f"Run {run[:6]}")
    steps.press(line.get_by_role("link", name="Open result"), result)
    steps.settled(tab)
    expect(tab.get_by_test_id("stPlotlyChart")).to_be_visible()
    picture(tab, f"run-{scheme}")
    return run


def reopen(tab: Page, run: str) -> None:
    """The address alone brings back run and recipe, in a tab that knows nothing."""
    address = tab.url
    sentence = steps.sidebar(tab).get_by_text("Remove the").inner_text()
    steps.go(tab, "Prune")
    share = steps.slider(tab).input_value()
    kept = steps.weights_kept(tab)
    other = tab.context.new_page()
    # A link to Prune that names a run that ended is a link to that run.
    for link in (address, tab.url):
        steps.open_at(other, link)
        expect(other.get_by_role("heading", name=f"Run {run[:6]}")).to_be_visible()
        expect(steps.sidebar(other).get_by_text(sentence)).to_be_visible()
        assert steps.run_in(other.url) == run  # what is loaded again is this same link
    steps.go(other, "Prune")
    expect(steps.slider(other)).to_have_value(share)
    assert steps.weights_kept(other) == kept
    other.close()


def watch_and_stop_another(tab: Page, scheme: str) -> str:
    """At least three times a new point must be seen to arrive while the run is live."""
    steps.set_number(tab, "Fine-tuning epochs", "5000")
    run = steps.start_run(tab)
    status = tab.get_by_role("group", name="Curves of the run").get_by_role("status")
    expect(status).to_contain_text(re.compile(r"[1-9]\d* of 20000 epochs"))
    seen: list[int] = []
    until = time.monotonic() + 60
    while len(seen) < 3 and time.monotonic() < until:
        now = steps.points(tab)
        if now and (not seen or now > seen[-1]):
            seen.append(now)
        tab.wait_for_timeout(100)
    assert len(seen) == 3, f"points arrived at once, or not at all: {seen}"
    picture(tab, f"live-{scheme}")
    ended = tab.locator(f".st-key-ended-{run}")
    steps.press(tab.locator(f".st-key-stop-{run}").get_by_role("button"), ended)
    stopped = re.compile(r"Stopped after epoch [\d,]+ of 20,000")
    expect(ended).to_contain_text(stopped)
    return run


def run_at_random(tab: Page) -> str:
    steps.set_number(tab, "Fine-tuning epochs", "1")
    before = tab.url
    tab.get_by_role("radio", name="Random: Remove").check(force=True)
    tab.wait_for_function("before => location.href !== before", arg=before)
    steps.settled(tab)
    run = steps.start_run(tab)
    expect(tab.locator(f".st-key-ended-{run}")).to_be_visible()
    return run


def compare(tab: Page, first: str, other: str, stopped: str, scheme: str) -> None:
    steps.go(tab, "Compare")
    chips = tab.get_by_test_id("stMultiSelect")
    for run in (first, other):
        if run[:4] not in chips.inner_text():  # the newest is picked already
            steps.pick(tab, chips.get_by_role("combobox", name="Runs"), run[:4])
        expect(chips).to_contain_text(run[:4])
    expect(chips).not_to_contain_text(stopped[:4])
    expect(tab.get_by_test_id("stPlotlyChart").first).to_be_visible()
    expect(tab.get_by_test_id("stDataFrame").first).to_be_visible()
    picture(tab, f"compare-{scheme}")
