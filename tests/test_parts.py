"""The slider's release draws anew what follows the share, and nothing else; Run sees it at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pages import opened, settled, texts, widget_key
from streamlit.testing.v1 import AppTest

from dashboard import parts, state
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Store


def script() -> None:
    """A page of counted parts, with buttons in the place of the slider."""
    import streamlit as st

    from dashboard import forms, parts, state

    counts = st.session_state.setdefault("counts", {})

    def drawn(key: str) -> None:
        counts[key] = counts.get(key, 0) + 1
        st.session_state.setdefault("shares", {})[key] = state.recipe().sparsity

    def release(share: float) -> None:
        forms.attempt(sparsity=share)
        parts.share_changed()

    state.take_address()
    st.text(" ".join(state.warnings()))
    drawn("page")
    for key in (*parts.FOLLOW_SHARE, parts.HISTORY, *map(parts.content, parts.FOLDED)):
        parts.part(key, drawn, key)
    for share in (0.1, 0.2, 0.3, 1.5):
        st.button(f"{share}", on_click=release, args=(share,))
    if not st.session_state.get("cut off"):
        state.note_shown()


def pressed(page: AppTest, share: float) -> dict[str, int]:
    """Part -> how often it was drawn since, after a release."""
    before = dict(page.session_state["counts"])
    whole = page._tree
    next(button for button in page.button if button.label == str(share)).click()
    page.run()
    if not page.button:  # AppTest keeps what the last run sent, a browser what it has
        page._tree = whole
    after = page.session_state["counts"]
    return {key: after[key] - before[key] for key in after if after[key] > before[key]}


@pytest.fixture
def page() -> AppTest:
    return AppTest.from_function(script).run()


FOLLOWING = dict.fromkeys(parts.FOLLOW_SHARE, 1)
WHOLE = {
    **FOLLOWING,
    **dict.fromkeys(["page", parts.HISTORY, *map(parts.content, parts.FOLDED)], 1),
}


def test_a_release_draws_what_follows_the_share_and_nothing_else(page: AppTest) -> None:
    # The first makes Undo possible, which is to be seen.
    assert pressed(page, 0.1) == {**FOLLOWING, parts.HISTORY: 1}
    assert pressed(page, 0.2) == FOLLOWING
    assert all(page.session_state["shares"][key] == 0.2 for key in parts.FOLLOW_SHARE)
    assert page.query_params["r"] == state.encode(replace(state.HOME, sparsity=0.2))


def test_an_open_popover_follows_too(page: AppTest) -> None:
    pressed(page, 0.1)
    page.session_state[parts.KEPT_TABLE] = True
    assert pressed(page, 0.2) == {**FOLLOWING, parts.content(parts.KEPT_TABLE): 1}


def test_what_is_said_at_the_top_needs_the_whole_page(page: AppTest) -> None:
    assert pressed(page, 1.5) == WHOLE  # refused, with a warning
    assert "1.5" in page.text[0].value
    page.session_state["adjustment"] = state.Adjustment("Adjusted.", page.session_state["recipe"])
    page.run()
    assert pressed(page, 0.1) == WHOLE  # the adjustment is no longer what the recipe is


def test_a_page_that_was_not_drawn_to_its_end_is_drawn_whole(page: AppTest) -> None:
    page.session_state["cut off"] = True
    page.run()
    assert pressed(page, 0.1) == WHOLE
    page.session_state["cut off"] = False
    page.run()
    assert pressed(page, 0.2) == FOLLOWING


# ---------------------------------------------------------------- what a browser sends late


def form() -> None:
    """A number of the recipe, and something else that changes it."""
    import streamlit as st

    from dashboard import forms, state

    state.take_address()
    forms.number("Remove, %", "sparsity", scale=100)
    st.button("slider", on_click=forms.attempt, kwargs={"sparsity": 0.5})
    st.button("Undo", on_click=state.undo)
    st.button("another", key="another")


def test_an_old_value_that_a_browser_still_shows_is_not_entered() -> None:
    page = AppTest.from_function(form).run()
    page.number_input[0].set_value(70.0).run()
    assert page.session_state["recipe"].sparsity == 0.7
    assert widget_key(page, "form-sparsity") == "form-sparsity", "what one types in keeps its place"
    (late,) = [one for one in page._tree.get_widget_states().widgets if one.double_value]
    for press, sparsity in (("slider", 0.5), ("Undo", 0.7), ("slider", 0.5)):
        next(button for button in page.button if button.label == press).click()
        page.run()
        # The next press was sent before the browser had drawn that.
        page.button(key="another").click()
        states = page._tree.get_widget_states()
        (shown,) = [one for one in states.widgets if one.double_value]
        states.widgets.remove(shown)
        states.widgets.append(late)
        page._run(states)
        assert page.session_state["recipe"].sparsity == sparsity
        assert page.number_input[0].value == pytest.approx(100 * sparsity)
        late = shown
    page.number_input[0].set_value(60.0).run()
    assert page.session_state["recipe"].sparsity == 0.6


# ---------------------------------------------------------------- the Prune page itself


@pytest.fixture
def no_pool(home, monkeypatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def test_prune_has_every_part_that_follows_the_share(no_pool, monkeypatch) -> None:
    drawn: list[str] = []
    plain = parts.part

    def noted(key, draw, *args) -> None:
        drawn.append(key)
        plain(key, draw, *args)

    monkeypatch.setattr(parts, "part", noted)
    page = settled("prune")
    assert not page.exception and not page.error
    assert {*parts.FOLLOW_SHARE, parts.HISTORY} <= set(drawn)
    assert set(map(parts.content, parts.FOLDED)) <= set(drawn)


def test_run_and_manual_ratios_take_the_share_of_a_release(no_pool) -> None:
    """Neither is drawn anew by a release: what they do must not be of the share before it."""
    page = settled("prune")
    released = replace(state.HOME, sparsity=0.3)
    page.session_state["recipe"] = released
    page.button(key="run-now").click().run()
    newest = Store().jobs("run")[0]
    assert Recipe.from_dict(newest.spec) == released


def test_undo_in_its_part_draws_the_whole_page(no_pool) -> None:
    page = settled("prune")
    page.number_input(key=state.form_key("sparsity")).set_value(30.0).run()
    assert "30 %" in texts(page)
    page.button(key="step-Undo").click().run()
    assert "90 %" in texts(page)
    assert page.number_input(key=widget_key(page, state.form_key("sparsity"))).value == 90.0


def test_tables_are_sent_when_they_are_opened(no_pool) -> None:
    page = settled("prune")
    assert not page.dataframe
    page.session_state[parts.KEPT_TABLE] = True
    page.run()
    assert len(page.dataframe) == 1
    assert not opened("prune").dataframe
