"""Glossary: each word that pages use, in one line, with its formula, its paper and its place."""

from __future__ import annotations

from itertools import groupby

import streamlit as st

from dashboard import glossary, handout, words
from dashboard.glossary import Term
from dashboard.views import _frame


def page() -> None:
    _frame.question("What do these words mean?")
    text = st.text_input(
        "Find",
        key="term",
        placeholder="A word, a method, a module",
        icon=":material/search:",
        bind="query-params",
        max_chars=80,
    )
    shown = [term for term in [*glossary.terms(), *glossary.techniques()] if term.matches(text)]
    if not shown:
        st.info(words.plain(f"Nothing here has “{text}” in it."), icon=":material/search_off:")
    for group, terms in groupby(shown, lambda term: term.group):
        st.header(group, anchor=False)
        handout.heading(group)
        with st.grid(min_column_width=380, gap="medium") as places:
            for term in terms:
                with places.cell(), st.container(gap="xsmall"):
                    explained(term)


def explained(term: Term) -> None:
    handout.text(f"{term.name}: {term.line}")
    st.markdown(f"**{words.plain(term.name)}**  \n{words.plain(term.line)}")
    if term.formula:
        st.latex(term.formula)
    if term.more:
        st.caption(words.plain(term.more))
    parts = [f"[Paper on {words.plain(term.name)}]({term.paper})"] if term.paper else []
    if term.where:
        parts.append(f"in {words.plain(term.where)}")
    # No caption, which is too pale for a link.
    st.markdown(" · ".join(parts))


page()
