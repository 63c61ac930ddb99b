"""The verbs of the shell, as people script them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sample_models
from pruning import registry
from pruning.cli import main
from pruning.recipe import Recipe


def run(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, object]]:
    """The lines of JSON of a run."""
    assert main(["run", *words, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


QUICK = ("--model", "digits-mlp", "--epochs", "2")


def test_lists(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, plural in registry.PLURAL.items():
        assert main(["list", plural, "--json"]) == 0
        assert [row["name"] for row in json.loads(capsys.readouterr().out)] == registry.names(kind)
    assert main(["list", "models", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == sample_models.names()
    assert main(["list", "datasets"]) == 0
    assert "digits" in capsys.readouterr().out


def test_the_last_line_is_the_result_exact_to_one_weight_and_repeats(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = run(capsys, *QUICK, "--sparsity", "0.9", "--seed", "1")
    assert [line["event"] for line in lines] == [
        "started",
        "measured",
        "pruned",
        "measured",
        "epoch",
        "epoch",
        "measured",
        "finished",
    ]
    end = lines[-1]
    weights = end["weights"]
    assert isinstance(weights, dict)
    assert weights["total"] - weights["kept"] == round(0.9 * weights["total"])
    assert abs(float(end["sparsity"]) - 0.9) <= 1 / weights["total"]  # type: ignore[arg-type]
    assert {"accuracy_before", "accuracy_after", "macs", "bytes", "latency"} <= end.keys()
    again = run(capsys, *QUICK, "--sparsity", "0.9", "--seed", "1")[-1]
    assert untimed(again) == untimed(end)
    assert end["sparse_file_bytes"] == end["bytes"]["sparse"]  # type: ignore[index]
    assert end["compressed_file_bytes"] < end["sparse_file_bytes"]  # type: ignore[operator]
    assert {
        "torch_batch1_ms",
        "torch_batch32_verdict",
        "calibration_error_points",
        "memory_activations_bytes",
    } <= end.keys()


def untimed(end: dict[str, object]) -> dict[str, object]:
    """A result without what was timed."""
    timed = ("latency", "seconds", "dense", "final", "energy_joules_measured")
    return {
        name: value for name, value in end.items() if name not in timed and "_batch" not in name
    }


def test_a_recipe_file_is_followed_and_flags_win_over_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "recipe.json"
    file.write_text(
        Recipe(model="digits-mlp", sparsity=0.5, exclude=("layers.0.weight",)).to_json(),
        encoding="utf-8",
    )
    first = run(capsys, str(file), "--exclude", named("digits-mlp")[0])[0]["recipe"]
    assert isinstance(first, dict)
    assert (first["sparsity"], first["exclude"]) == (0.5, [named("digits-mlp")[0]])


def named(model: str) -> list[str]:
    """Names of a sample model's layers."""
    from pruning.types import prunable

    return list(prunable(sample_models.build(model)))


def test_options_of_techniques_and_ratios_are_flags(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = named("digits-mlp")
    words = [
        "--options",
        "norm=l2",
        "--granularity",
        "channel",
        "--granularity-options",
        "pool=max",
        "--scope",
        "manual",
    ]
    lines = run(
        capsys,
        "--model",
        "digits-mlp",
        *words,
        "--ratios",
        f"{first}=0.5",
        "--ratios",
        f"{second}=0.25",
    )
    recipe = lines[0]["recipe"]
    assert isinstance(recipe, dict)
    assert (recipe["options"], recipe["granularity_options"], recipe["ratios"]) == (
        {"norm": "l2"},
        {"pool": "max"},
        {first: 0.5, second: 0.25},
    )


def test_saved_weights_are_the_pruned_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file

    file = tmp_path / "pruned.safetensors"
    end = run(capsys, *QUICK, "--sparsity", "0.75", "--save", str(file))[-1]
    state = load_file(file)
    kept = sum(int(state[name].count_nonzero()) for name in named("digits-mlp"))
    assert kept == end["weights"]["kept"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--sparsity", "1.5"], "sparsity is 1.5, but must be a share from 0"),
        (["--criterion", "magic"], "no criterion called 'magic': known are"),
        (["--ratios", "nope=0.5"], "no layer called 'nope'"),
        (["--options", "norm"], "'norm' is not NAME=VALUE"),
        (["--model", "digits-mpl"], "did you mean 'digits-mlp'"),
    ],
)
def test_errors_are_one_sentence_and_exit_2(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--model", "digits-mlp", *words]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_a_run_needs_a_model_and_a_readable_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run"]) == 2
    assert "No model is named: add --model" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none.json")]) == 2
    assert "cannot be read as a recipe" in capsys.readouterr().err
    (tmp_path / "new.json").write_text('{"version": 7}', encoding="utf-8")
    assert main(["run", str(tmp_path / "new.json")]) == 2
    assert "update the workbench" in capsys.readouterr().err


def test_words_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *QUICK]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("digits-mlp: magnitude by weight, global, 2 epochs")
    assert lines[-1].startswith(
        "finished magnitude, global, 50.0 % of the weights pruned (25,100 of 50,200)"
    )


def test_the_sensitivity_map_is_a_line_for_each_cell_and_a_summary(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["sensitivity", "--model", "digits-mlp", "--levels", "0.5", "0.9", "--threads", "1"]
    assert main([*words, "--json"]) == 0
    *points, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(p["event"], p["layer"], p["level"]) for p in points] == [
        ("point", layer, level) for layer in named("digits-mlp") for level in (0.5, 0.9)
    ]
    assert all(p["tier"] == "exact" and p["accuracy"]["total"] == 180 for p in points)
    assert all(p["kept"] == p["units"] - round(p["level"] * p["units"]) for p in points)
    assert (end["event"], end["cells"], end["layers"], end["tier"]) == ("summary", 6, 3, "exact")
    assert set(end["within_1_point"]) == set(named("digits-mlp"))
    assert main([*words, "--tier", "estimate", "--granularity", "channel"]) == 0
    assert "(estimate)" in capsys.readouterr().out
    assert main(["sensitivity", "--model", "digits-mlp", "--levels", "1"]) == 2
    assert "A level is 1.0" in capsys.readouterr().err
