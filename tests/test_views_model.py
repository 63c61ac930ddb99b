"""Model: opens on something finished, shows what a model is made of, and takes another."""

from __future__ import annotations

import pickle

import pytest

from dashboard import jobs, state, tables, words
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Store
from tests.pages import opened, settle, settled, texts


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def test_the_first_page_is_never_empty():
    page = opened()
    text = texts(page)
    assert not page.exception and not page.error
    assert "digits-cnn" in text and "98.1 % ± 1.5" in text
    (example,) = Store().jobs("run")
    assert words.sentence(jobs.recipe_of(example)) in text
    assert not page.get("skeleton")  # its card is shipped
    keys = {button.key for button in page.button}
    assert {"choose-digits-mlp", "choose-mnist-lenet5"} <= keys


def test_a_model_without_a_shipped_card_says_what_it_waits_for():
    other = state.encode(Recipe(model="mnist-lenet5"))
    assert "Measuring mnist-lenet5" in texts(opened(r=other))


def test_the_example_is_a_finished_run_with_everything_a_run_leaves():
    opened()
    (job,) = Store().jobs("run")
    run = jobs.run_files(job)
    assert job.state == "finished" and tables.is_example(job)
    assert run.finished.sparsity == pytest.approx(0.9, abs=1 / 40_208)
    assert (
        sum(int(h.final.sum()) for h in run.histograms.values()) == run.finished.final.kept == 4021
    )
    kept = {layer.name: layer.kept for layer in run.finished.final.layers}
    assert {name: int(mask.sum()) for name, mask in run.masks().items()} == kept
    assert run.weights.exists()
    opened()  # a second start records it once
    assert len(Store().jobs("run")) == 1


def test_a_workspace_with_runs_gets_no_example():
    Store().submit("run", Recipe(model="digits-mlp").to_dict())
    opened()
    assert len(Store().jobs("run")) == 1


def test_layers_and_answers():
    page = settled()
    table = page.dataframe[0].value
    assert list(table["layer"]) == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    assert list(table["weights"]) == [144, 4608, 18432, 16384, 640]
    assert table["share"].sum() == pytest.approx(100)
    assert "40,208 weights that techniques may remove, of 40,394 parameters" in texts(page)
    assert "Its answers to some test inputs" in texts(page)


def test_weights_that_nothing_prunes_are_named_and_macs_are_all():
    text = texts(settled(r=state.encode(Recipe(model="digits-vit"))))
    assert "768 weights in 1 tensor are not pruned" in text and "position" in text
    assert "of them belong to no weight" in text


def test_another_model():
    page = opened()
    page.button(key="choose-digits-mlp").click()
    settle(page.run())
    assert state.decode(page.query_params["r"]).model == "digits-mlp"
    assert "97.5 %" in page.metric[0].value
    assert list(page.dataframe[0].value["layer"]) == ["fc1", "fc2", "fc3"]


def test_a_torchvision_architecture_is_labelled_random():
    page = settled(r=state.encode(Recipe(model="torchvision:squeezenet1_1")))
    text = texts(page)
    assert "random weights" in text
    assert not page.metric  # no accuracy
    assert "No answers to show" in text


def test_an_unknown_model_is_one_sentence_and_the_page_goes_on():
    page = settled(r=state.encode(Recipe(model="digits-cn")))
    assert not page.exception
    assert page.error and all("digits-cn" in error.value for error in page.error)
    assert page.button(key="choose-digits-mlp")


class Planted:
    def __reduce__(self):
        return (exec, ("raise SystemExit('it was run')",))


def test_a_pickled_program_is_refused_and_the_page_goes_on():
    page = opened()
    page.segmented_control(key="way").set_value("Your own weights").run()
    page.file_uploader[0].upload("model.pt", pickle.dumps(Planted())).run()
    page.run()
    assert not page.exception
    assert any("refused" in error.value and "model.pt" in error.value for error in page.error)
    assert state.decode(page.query_params["r"]).model == "digits-cnn"


def test_prefixed_weights_are_matched_and_become_the_current_model(tmp_path):
    import torch

    import sample_models

    weights = sample_models.build("digits-mlp", seed=3).state_dict()
    torch.save(
        {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
        tmp_path / "mine.pt",
    )
    page = opened()
    page.segmented_control(key="way").set_value("Your own weights").run()
    page.selectbox(key="own-architecture").set_value("digits-mlp").run()
    page.file_uploader[0].upload("mine.pt", (tmp_path / "mine.pt").read_bytes()).run()
    settle(page.run())
    assert not page.exception and not page.error
    assert any("mine.pt" in box.value and "module" in box.value for box in page.success)
    assert state.decode(page.query_params["r"]).model.startswith("upload:")
    assert list(page.dataframe[0].value["weights"]) == [19200, 30000, 1000]


def test_weights_of_another_sample_are_used_there_without_bringing_them_again(tmp_path):
    """page.md, fault 28."""
    import torch

    import sample_models

    torch.save(sample_models.build("digits-mlp", seed=3).state_dict(), tmp_path / "mine.pt")
    page = opened()
    page.segmented_control(key="way").set_value("Your own weights").run()
    page.selectbox(key="own-architecture").set_value("digits-cnn").run()
    page.file_uploader[0].upload("mine.pt", (tmp_path / "mine.pt").read_bytes()).run()
    page.run()
    assert any("refused" in box.value and "digits-mlp" in box.value for box in page.error)
    assert state.decode(page.query_params["r"]).model == "digits-cnn"
    page.button(key="elsewhere-digits-mlp").click()
    settle(page.run())
    assert not page.exception and not page.error
    assert state.decode(page.query_params["r"]).model.startswith("upload:")
    assert list(page.dataframe[0].value["weights"]) == [19200, 30000, 1000]


def test_a_zip_of_pictures_is_worked_on_and_adjusted():
    from tests.test_datasets import by_class, zipped

    page = opened()
    page.segmented_control(key="way").set_value("Your own data").run()
    page.file_uploader[0].upload("bad.zip", zipped({"a.txt": b"x"})).run()
    page.run()
    assert not page.exception
    assert any("refused" in error.value and "bad.zip" in error.value for error in page.error)
    page.file_uploader[0].upload("mine.zip", zipped(by_class(12, "01"))).run()
    page.run()
    assert not page.exception
    model = state.decode(page.query_params["r"]).model
    assert model.startswith("digits-cnn@data:")
    assert "mine.zip" in texts(page) and "24 pictures of 1 × 8 × 8, 2 classes" in texts(page)
    id = model.rpartition(":")[2]
    page.selectbox(key=f"data-normalisation-{id}").set_value("unit")
    page.number_input(key=f"data-seed-{id}").set_value(5)
    next(button for button in page.button if button.label == "Apply").click()
    settle(page.run())
    assert not page.exception
    assert state.decode(page.query_params["r"]).model not in (model, "digits-cnn")
