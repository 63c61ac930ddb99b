"""The projector's view: one of the page's charts, large; everything else of the page is folded.

The page is drawn as ever, behind (page.css hides it), so that its controls keep what they are set
to; what it has of charts is offered here instead of drawn there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import streamlit as st

from dashboard import state, words
from dashboard.charts import projected
from dashboard.components.leave import leave

BEHIND = "behind"
"""The container of the page itself, as page.css names it."""

PLACE = "projector"
"""The container of the chart: page.css makes all in it large."""


@dataclass
class Projection:
    """What the projector shows in this run of the script.

    controls, place: of what is picked, and of the chart; charts: name -> (title, draws it below its
    title); ended: the page is drawn, and what is offered now comes from a part of it that was drawn
    anew.
    """

    controls: Any
    place: Any
    charts: dict[str, tuple[str, Callable[[], None]]] = field(default_factory=dict)
    ended: bool = False

    @property
    def chosen(self) -> str | None:
        """The name of the chart that is shown: the one that was picked, else the page's first."""
        wanted = state.projected()
        return wanted if wanted in self.charts else next(iter(self.charts), None)


def begin() -> Any:
    """Call it before the page is drawn, and draw the page in the container that it returns."""
    with st.container(key=PLACE, gap="small"):
        controls = st.container(horizontal=True, vertical_alignment="center")
        place = st.empty()
    state.set_projection(Projection(controls, place))
    return st.container(key=BEHIND)


def offer(name: str, title: str, draw: Callable[[], None], *, widget: bool = False) -> bool:
    """Offer a chart to the projector; False where there is none, and the page draws it.

    widget: it answers to people, and a part of the page cannot draw it elsewhere.
    """
    projection: Projection | None = state.projection() if state.projector() else None
    if projection is None:
        return False
    projection.charts[name] = (title, draw)
    if projection.ended and projection.chosen == name:
        if widget:
            st.rerun()
        _draw(projection)
    return True


def end() -> None:
    """Call it once the page is drawn: shows the chart, and what can be shown instead."""
    projection: Projection = state.projection()
    projection.ended = True
    _draw(projection)
    titles = {name: title for name, (title, _) in projection.charts.items()}
    with projection.controls:
        if len(titles) > 1:
            _pick(titles, projection.chosen)
        leave(_leave, state.window_height(), state.set_window_height, key="leave")


def _leave() -> None:
    state.set_projector(False)


def component(name: str, title: str, draw: Callable[[], None]) -> None:
    """A picture that is no plotly chart: drawn here, or offered to the projector."""
    if not offer(name, title, partial(_component, draw), widget=True):
        draw()


def _component(draw: Callable[[], None]) -> None:
    with st.container(key="projected-component"):
        draw()


def chart(figure: dict[str, Any], alt: str, name: str) -> None:
    """A plotly chart whose title stands above it, in letters for a room; nobody clicks in it."""
    made = projected.enlarged(figure, state.window_height())
    # Streamlit draws a figure of another size in the old one's place unless it has another key.
    key = f"projected-{name}-{state.window_height()}"
    # Streamlit's theme for charts has letters of its own size.
    st.plotly_chart(made, key=key, theme=None, config={"displayModeBar": False}, alt=alt)


def _pick(titles: dict[str, str], chosen: str | None) -> None:
    key = "projector-chart"

    def picked() -> None:
        state.project(str(state.widget_value(key)))

    state.set_widget(key, chosen)
    st.selectbox(
        "Chart",
        list(titles),
        format_func=titles.__getitem__,
        key=key,
        on_change=picked,
        label_visibility="collapsed",
        width=520,
    )


def _draw(projection: Projection) -> None:
    with projection.place.container():
        name = projection.chosen
        if name is None:
            st.title(state.page_title(), anchor=False)
            st.markdown("This page has no chart to show now.")
            return
        title, draw = projection.charts[name]
        st.title(words.plain(title), anchor=False)
        draw()
