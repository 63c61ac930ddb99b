"""Somebody's own network and pictures, from two files to a bundle that is opened offline."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from e2e import steps
from e2e.conftest import complaints, picture
from e2e.served import Served
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from dashboard import state
from pruning.recipe import Recipe

RECIPE = Recipe(model="digits-cnn", granularity="channel", sparsity=0.3)
"""In one step and without fine-tuning: each page would measure what it says on the way there."""

CLASSES = ("blue", "green", "grey", "red", "yellow")
COLOURS = np.array([(40, 60, 200), (40, 180, 60), (128, 128, 128), (200, 40, 50), (210, 200, 40)])
EACH = 12  # pictures of a class
SIDE = 32  # pixels
WAIT = 120_000  # milliseconds for what a worker does with a network that is new to it


def patches() -> Iterator[tuple[int, np.ndarray]]:
    """(class, pixels): a noisy patch of the class's colour on a noisy ground."""
    random = np.random.default_rng(0)
    for number in range(EACH * len(CLASSES)):
        label = number % len(CLASSES)
        pixels = random.integers(0, 256, (SIDE, SIDE, 3))
        top, side = random.integers(0, SIDE // 2, 2)
        patch = COLOURS[label] + random.integers(-30, 30, (SIDE // 2, SIDE // 2, 3))
        pixels[top : top + SIDE // 2, side : side + SIDE // 2] = patch
        yield label, np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pictures_of_five(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "patches.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for number, (label, pixels) in enumerate(patches()):
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(f"{CLASSES[label]}/{number}.png", buffer.getvalue())
    return file


@pytest.fixture(scope="session")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SqueezeNet whose last layer was trained on the patches, as torchvision's users save it."""
    import torch
    import torchvision

    torch.manual_seed(0)
    model = torchvision.models.squeezenet1_1(num_classes=len(CLASSES)).eval()
    labels, pixels = zip(*patches(), strict=True)
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 255
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    x = (x - mean[:, None, None]) / deviation[:, None, None]
    head = model.classifier[1]  # a convolution of 1 by 1, here on one place
    with torch.no_grad():
        features = model.features(x).flatten(1)
        features = torch.cat([features, torch.ones(len(x), 1)], 1)
        targets = torch.nn.functional.one_hot(torch.tensor(labels)).float()
        solved = torch.linalg.lstsq(features.double(), targets.double(), driver="gelsd").solution
        head.weight.copy_(10 * solved[:-1].T[:, :, None, None])
        head.bias.copy_(10 * solved[-1])
    file = tmp_path_factory.mktemp("weights") / "fine-tuned.pt"
    torch.save(model.state_dict(), file)
    return file


@pytest.mark.parametrize("scheme", ["light"])  # colours change nothing of it
def test_from_two_files_to_a_bundle_that_opens_offline(
    app: Served,
    tab: Page,
    browser: Browser,
    fine_tuned: Path,
    pictures_of_five: Path,
    tmp_path: Path,
) -> None:
    steps.open_at(tab, f"{app.url}/?r={state.encode(RECIPE)}")
    bring(tab, fine_tuned, pictures_of_five)
    run = prune(tab)
    bundle = take_home(tab, run)
    with zipfile.ZipFile(bundle) as archive:
        assert {"model.py", "model.safetensors", "model.onnx"} <= set(archive.namelist())
        report = Path(archive.extract("report.html", tmp_path))
    opens_offline(browser, report)


def bring(tab: Page, weights: Path, examples: Path) -> None:
    """The weights into their architecture, then examples for them; its accuracy is shown."""
    architecture = tab.get_by_role("combobox", name="Architecture to fill")
    steps.press(tab.get_by_role("radio", name="Your own weights"), architecture)
    steps.settled(tab)
    steps.pick(tab, architecture, "squeezenet1_1")
    steps.upload(tab, weights)
    accepted = tab.get_by_text("fine-tuned.pt is the current model")
    expect(accepted).to_be_visible(timeout=WAIT)
    # What the page measures meanwhile need not be waited for: it has other examples soon.
    uploader = tab.get_by_test_id("stFileUploader")
    steps.press(
        tab.get_by_role("radio", name="Your own data"), uploader.filter(has_text="Data set")
    )
    # The other uploader goes a moment later.
    expect(uploader).to_have_count(1)
    steps.upload(tab, examples)
    counts = tab.get_by_text(re.compile("10 to choose by, 10 to report on"))
    expect(counts).to_be_visible(timeout=WAIT)
    # Of the size that the files have: 224 pixels, as the architecture's example, take longer.
    side = tab.get_by_role("spinbutton", name=re.compile("^Pixels a side"))
    side.fill(str(SIDE))
    steps.press_for_change(tab, tab.get_by_role("button", name="Apply"))
    accuracy = steps.sidebar(tab).get_by_test_id("stMetric")
    expect(accuracy).to_contain_text("Accuracy, dense", timeout=WAIT)
    shown = re.search(r"([\d.]+) %", accuracy.inner_text())
    assert shown and float(shown.group(1)) > 60, "its head was trained: chance is 20 %"


def prune(tab: Page) -> str:
    """By the recipe of the link, which the model that was brought has taken over."""
    expect(steps.sidebar(tab).get_by_text("Remove the 30 % of channels")).to_be_visible()
    tab.get_by_role("navigation", name="App pages").get_by_role("link", name="Prune").click()
    run = steps.start_run(tab)
    line = tab.locator(f".st-key-ended-{run}")
    line.get_by_role("link", name="Open result").click(timeout=WAIT)
    expect(tab.get_by_role("heading", name=f"Run {run[:6]}")).to_be_visible()
    steps.settled(tab)
    return run


def take_home(tab: Page, run: str) -> Path:
    """Have the files made; where the browser put the bundle."""
    make = tab.locator(f".st-key-take-home-{run}").get_by_role("button")
    bundle = tab.locator(f".st-key-home-bundle-zip-{run}").get_by_role("button")
    steps.press(make, bundle.or_(tab.get_by_text("Writing model.py")).first)
    expect(bundle).to_be_visible(timeout=WAIT)
    file = steps.download(tab, bundle)
    picture(tab, "taken-home")
    assert file.suggested_filename == f"{run[:6]}-bundle.zip"
    return Path(file.path())


def opens_offline(browser: Browser, report: Path) -> None:
    """Pictures and numbers, and nothing is asked of anybody."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    errors = complaints(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    expect(page.get_by_role("heading", name="Figures")).to_be_visible()
    figures = page.get_by_role("row", name=re.compile("Accuracy"))
    expect(figures).to_contain_text("%")
    drawn = page.locator("figure svg")
    assert drawn.count() > 2
    for number in range(drawn.count()):
        box = drawn.nth(number).bounding_box()
        assert box and box["width"] > 50 and box["height"] > 20
    assert asked == [report.as_uri()] and errors == []
    context.close()
