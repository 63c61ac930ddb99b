"""Locks: a locked control is disabled and says why, a hidden one is not drawn, and nothing else
changes their fields either.
"""

from __future__ import annotations

import pytest
from pages import opened, texts
from test_state import open_page, press, shown

from dashboard import locks, state
from pruning.errors import RecipeError
from pruning.recipe import Recipe

TAYLOR = state.encode(Recipe(model="digits-mlp", criterion="taylor", sparsity=0.3))


def test_every_field_of_a_recipe_has_one_control() -> None:
    fields = [field for fields in locks.CONTROLS.values() for field in fields]
    assert sorted(fields) == sorted(Recipe.__dataclass_fields__)


def test_names_of_an_address_are_known_ones() -> None:
    assert locks.names("criterion, scope,,criterion,<b>") == (["criterion", "scope"], ["<b>"])


@pytest.mark.parametrize("key", ["lock", "hide"])
def test_a_lock_keeps_its_fields_whatever_changes_the_recipe(key: str) -> None:
    page = open_page(r=TAYLOR, **{key: "sparsity,model"})
    before = shown(page)
    assert before.criterion == "taylor" and before.sparsity == 0.3  # what the link brings, first
    for label in ("less", "other"):
        press(page, label)
        assert shown(page) == before
    page.query_params["r"] = state.encode(Recipe(model="digits-mlp", sparsity=0.7))
    page.run()
    assert shown(page).sparsity == 0.3 and shown(page).criterion == "magnitude"
    assert any("sparsity asked stays as it is" in one.value.lower() for one in page.warning)
    press(page, "undo")
    assert shown(page) == before
    press(page, "reset")
    assert shown(page).sparsity == 0.3 and shown(page).model == "digits-mlp"


def test_an_unknown_name_is_told_and_locks_nothing() -> None:
    page = open_page(lock="colour")
    assert any("colour" in one.value for one in page.warning)
    press(page, "less")
    assert shown(page).sparsity == 0.25


def test_a_recipe_that_does_not_go_with_what_is_locked_is_refused() -> None:
    groups = Recipe(model="digits-cnn", criterion="bn_scale", granularity="channel")
    page = open_page(r=state.encode(groups), lock="criterion")
    press(page, "reset")  # by single weights, which have no scale of BatchNorm
    assert not page.exception and shown(page) == groups


def test_locked_controls_are_disabled_with_the_reason_and_hidden_ones_not_drawn() -> None:
    page = opened("prune", lock="epochs,sparsity,run", hide="lr,schedule")
    epochs = page.number_input(state.form_key("epochs"))
    assert epochs.disabled and "Locked by the link" in epochs.help
    assert page.button("run-now").disabled
    assert not page.number_input(state.form_key("steps")).disabled
    keys = [one.key for one in page.number_input]
    assert state.form_key("lr") not in keys
    assert "**Schedule**" not in texts(page) and "**Scope**" in texts(page)


def test_unlock_frees_them() -> None:
    page = opened("prune", lock="epochs")
    page.button("unlock").click().run()
    assert not page.number_input(state.form_key("epochs")).disabled
    assert "lock" not in page.query_params


def test_an_unknown_control_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RecipeError, match=r"no control “colour”: those are .*criterion"):
        state.set_address_locks(["colour"])
