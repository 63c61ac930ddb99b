"""Share: the link, the handout, the projector's view and the simple layout."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlsplit

import pytest
from pages import APP, figures, finished, opened, settle, settled, texts
from streamlit.testing.v1 import AppTest

from dashboard import handout, lesson, locks, state, words
from dashboard.charts import projected
from pruning.export.report import report
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.records import record_of
from pruning.runs.store import Store
from pruning.storage import default_workspace

SWEEP = "shipped:digits-mlp"
RECIPE = Recipe(model="digits-mlp", sparsity=0.9)


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def share(page: AppTest) -> AppTest:
    page = page.button(key="open-share").click().run()
    assert not page.exception
    return page


def link_of(page: AppTest) -> dict[str, str]:
    """What the dialog's link has after its question mark."""
    (link,) = [code.value for code in page.code if "?" in code.value]
    return {key: values[0] for key, values in parse_qs(urlsplit(link).query).items()}


def made_on(page: AppTest) -> handout.Handout:
    """The handout that the dialog makes of what the page shows."""
    made: list[handout.Handout] = []
    plain = handout.made

    def noted(*args, **more):
        made.append(plain(*args, **more))
        return made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(handout, "made", noted)
        page = share(page).button(key="share-handout").click().run()
    assert not page.exception and len(made) == 1
    assert [button.proto.label for button in page.get("download_button")].count(
        "Download the handout"
    )
    return made[0]


class Requests(HTMLParser):
    """What a browser would ask for while it shows a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.text = ""
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.inside = tag
        asking = ("src", "href", "srcset", "action", "data", "poster", "background", "xlink:href")
        self.asked += [f"{tag} {name}={value}" for name, value in attrs if name in asking]
        self.asked += [
            f"{tag} style" for name, value in attrs if name == "style" and "(" in (value or "")
        ]
        if tag in ("link", "base", "iframe", "object", "embed", "img"):
            self.asked.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "style" and re.search(r"url\(|@import|http", data):
            self.asked.append(data)
        elif self.inside not in ("script", "style"):
            self.text += f"{data} "


def read(html: str) -> Requests:
    parsed = Requests()
    parsed.feed(html)
    parsed.close()
    return parsed


# ---------------------------------------------------------------- the link


def test_the_link_names_what_the_page_shows_by_itself_and_what_was_picked() -> None:
    page = settled("sweeps", point="0.9 magnitude", sweep=SWEEP, r=state.encode(RECIPE))
    panel = next(text for text in texts(page).splitlines() if text.startswith("magnitude at"))
    link = link_of(share(page))
    assert link["point"] == "0.9 magnitude" and link["sweep"] == SWEEP
    assert state.decode(link["r"]) == RECIPE and "lock" not in link
    link |= {"lock": "criterion,exclude,run", "layout": "simple"}
    again = settled("sweeps", **link)
    assert not again.exception and panel in texts(again)
    assert link_of(share(again)) == link  # boxes are ticked as this tab stands


def test_what_a_page_shows_unasked_is_in_the_link() -> None:
    link = link_of(share(opened("sweeps", r=state.encode(RECIPE))))
    assert link["sweep"] == SWEEP


@pytest.mark.parametrize(("point", "seeds"), [("much magnitude", "99"), ("0.9", "-1")])
def test_values_of_an_address_that_cannot_be_are_told(point: str, seeds: str) -> None:
    page = opened(point=point, seeds=seeds)
    assert not page.exception and len(page.warning) == 2
    assert point in page.warning[0].value and seeds in page.warning[1].value


def test_a_link_has_a_picture_unless_it_is_too_long() -> None:
    page = share(opened("glossary"))
    assert len(page.get("image")) == 1
    assert any("opens on this machine alone" in one.value for one in page.caption)
    page.query_params["c"] = ",".join(f"run-{i:0190}" for i in range(40))
    page = share(page)
    assert not page.get("image") and any("too long" in one.value for one in page.caption)


def test_what_can_be_locked_in_the_dialog_are_controls() -> None:
    from dashboard.views._share import LOCKABLE

    assert set(LOCKABLE) <= set(locks.CONTROLS)


# ---------------------------------------------------------------- the handout


def test_a_runs_handout_is_its_report_and_asks_for_nothing() -> None:
    id = finished(RECIPE)
    made = made_on(settled("run", run=id))
    html = made.html()
    record = record_of(Store(), id)
    body = report(record, []).split("<body>")[1].split("</h1>")[1].split("</body>")[0]
    assert all(line in html for line in body.strip().splitlines())
    parsed = read(html)
    assert parsed.asked == []
    assert words.sentence(RECIPE) in parsed.text and "seed 0" in parsed.text
    assert record.date in parsed.text and str(record.machine["processor"]) in parsed.text
    assert "default-src 'none'" in html


def test_a_comparison_is_handed_out_whole_and_projected_chart_by_chart() -> None:
    ids = [finished(RECIPE), finished(Recipe(model="digits-mlp", criterion="random", sparsity=0.9))]
    page = settled("compare", c=",".join(ids))
    made = made_on(page)
    html = made.html()
    parsed = read(html)
    assert parsed.asked == []
    drawn = re.findall(r'<script type="application/json">(.*?)</script>', html, re.S)
    assert made.plots == len(drawn) == len(figures(page)) > 2
    assert all(json.loads(figure)["data"] for figure in drawn)
    assert html.count("Plotly.newPlot(place") == 1
    for id in ids:
        record = record_of(Store(), id)
        assert record.recipe and words.sentence(record.recipe) in parsed.text
        assert record.date in parsed.text
    assert made.file == "which-of-these-runs-is-worth-keeping.html"
    # The same two on a projector: one of these charts at a time.
    page = projected_page("compare", c=",".join(ids))
    (first,) = figures(page)
    picker = page.selectbox(key="projector-chart")
    assert len(picker.options) > 2
    page = picker.select_index(1).run()
    (second,) = figures(page)
    assert second != first and page.query_params["chart"]
    link = {key: page.query_params[key] for key in ("chart", "c")}
    assert list(figures(projected_page("compare", **link))) == [second]


def test_a_sweeps_handout_has_its_picture_and_where_it_was_made() -> None:
    made = made_on(settled("sweeps", sweep=SWEEP, r=state.encode(RECIPE)))
    parsed = read(made.html())
    assert made.plots == 1 and parsed.asked == []
    assert "109 runs" in parsed.text and "Made on" in parsed.text and "3 seeds" in parsed.text
    assert words.sentence(RECIPE) in parsed.text


LESSON = """
title = "A short one"
question = "Is a handout whole?"
minutes = 5
[[step]]
title = "Look at it"
text = "A *mask* keeps 2 * 3 weights of `conv1`, **no more**."
page = "prune"
[step.reveal]
text = "That was <all> of it."
"""


def test_a_lessons_step_is_in_the_handout_with_its_reveal() -> None:
    folder = default_workspace() / lesson.OWN
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "short.toml").write_text(LESSON, encoding="utf-8")
    page = opened("prune", lesson="short", step="1", r=state.encode(RECIPE))
    shown = read(made_on(page).html())
    assert shown.asked == []
    assert "A short one, step 1: Look at it" in shown.text
    assert "A mask keeps 2 * 3 weights of conv1, no more." in shown.text
    assert "That was <all> of it." in shown.text and words.sentence(RECIPE) in shown.text
    assert link_of(share(page))["lesson"] == "short"


def test_text_from_others_stays_text_in_a_handout() -> None:
    evil = '</script><script src="http://x/">alert(1)</script><img src=x>'
    figure = {"data": [{"text": [evil]}], "layout": {"title": {"text": evil}, "margin": {"t": 9}}}
    with pytest.MonkeyPatch.context() as patch:
        parts: list[str] = []
        patch.setattr(state, "recording", lambda: True)
        patch.setattr(state, "handout_parts", lambda: parts)
        handout.chart(figure, evil)
        handout.text(evil)
        made = handout.made(evil, evil, evil, waits=True)
    html = made.html()
    assert read(html).asked == []
    assert "<script src" not in html.replace(handout.plotly_script(), "") and "<img" not in "".join(
        made.parts
    )


# ---------------------------------------------------------------- the projector's view


def projected_page(name: str, **address: str) -> AppTest:
    page = AppTest.from_file(str(APP), default_timeout=30)
    page.query_params.update({"view": "projector", **address})
    return settle(page.run().switch_page(f"views/{name}.py").run())


def test_the_projector_shows_one_chart_of_the_page_large() -> None:
    page = projected_page("sweeps", sweep=SWEEP)
    assert not page.exception
    (title,) = [figure["layout"]["meta"]["title"] for figure in figures(page).values()]
    assert page.title[0].value == words.plain(title)
    ((_, figure),) = figures(page).items()
    assert figure["layout"]["font"]["size"] >= 20
    assert not page.sidebar.children
    page.session_state["view"] = None  # as Leave does
    assert page.run().sidebar.children


def test_enlarging_scales_pixels_and_nothing_else() -> None:
    figure = {
        "data": [
            {"type": "bar", "width": 0.5, "marker": {"size": [4, 8], "line": {"width": 1}}},
            {"x": [1, 2], "error_y": {"width": 3, "array": [0.1]}},
        ],
        "layout": {
            "title": {"text": "What it shows"},
            "font": {"size": 13},
            "margin": {"l": 8, "t": 44},
            "annotations": [{"x": 2, "xshift": 10, "font": {"size": 12}}],
            "height": 340,
        },
    }
    made = projected.enlarged(figure, 900)  # twice
    assert made["data"][0] == {
        "type": "bar",
        "width": 0.5,
        "marker": {"size": [8, 16], "line": {"width": 2}},
    }
    assert made["data"][1]["error_y"] == {"width": 6, "array": [0.1]}
    assert made["layout"]["annotations"] == [{"x": 2, "xshift": 20, "font": {"size": 24}}]
    assert made["layout"]["font"]["size"] == 26 and made["layout"]["height"] == 650
    assert "title" not in made["layout"] and figure["layout"]["margin"] == {"l": 8, "t": 44}


# ---------------------------------------------------------------- simple and full


def test_the_simple_layout_shows_what_a_first_run_needs_and_locks_nothing() -> None:
    full = opened("prune", r=state.encode(RECIPE))
    page = opened("prune", r=state.encode(RECIPE), layout="simple")
    assert not page.exception
    keys = {widget.key for widget in page.get("number_input")}
    assert keys == {"form-sparsity", "form-epochs"}
    assert len(page.get("bidi_component")) < len(full.get("bidi_component"))
    headings = texts(page)
    assert "Criterion" in headings and "Granularity" not in headings
    assert page.button(key="run-now")
    other = state.encode(Recipe(model="digits-mlp", granularity="row", sparsity=0.5))
    page.query_params["r"] = other
    page.run()
    assert page.session_state["recipe"] == state.decode(other) and not page.warning


def test_the_layout_is_kept_by_the_browser() -> None:
    page = share(opened())
    page.button(key="share-layout").click().run()
    assert page.query_params["layout"] == "simple"
    assert page.session_state["chosen_layout"] == "simple"
    components = [element.proto for element in page.get("bidi_component")]
    sent = [proto.json or proto.mixed.json for proto in components]
    assert any("workbench-layout=simple" in text for text in sent)
