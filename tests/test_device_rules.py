"""A reviewer's rule over the engine's source: what would break on an accelerator, and on no CPU.

Tensors are asked for their numbers on the CPU, random numbers are drawn there, and a tensor that is
made says where. Tests on a machine without an accelerator would not notice.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "pruning"

MAKERS = frozenset(
    {"zeros", "ones", "arange", "tensor", "empty", "full", "eye", "linspace", "as_tensor"}
    | {"rand", "randn", "randint", "normal", "scalar_tensor"}
)
"""Functions of torch that make a tensor of no other. Not randperm: orders of the CPU index a tensor
of any device."""

OF_THE_CPU = {
    "structure": "graphs, labels and certificates are made on the CPU, of a copy that lies there",
    "units": "units pool scores and spread masks, which are data and lie on the CPU",
    "formats": "files are read on the CPU",
    "runs": "workers make examples and read files on the CPU, before anything is moved",
    "export": "files are written on the CPU",
    "studies": "studies of pages are worked out on the CPU",
    "types.py": "which examples a batch holds is drawn and sorted on the CPU",
    "criteria/random.py": "drawn on the CPU, so that every device gets the same scores",
    "measurement/remembered.py": "of a file",
    "measurement/sparse_file.py": "of a state that was brought to the CPU",
    "measurement/onnx.py": "ONNX Runtime is given arrays of the CPU",
    "allocation": "scores are brought to the CPU before they are ranked",
}
"""Places whose tensors are the CPU's own -> why."""


def sources() -> Iterator[tuple[str, ast.Module]]:
    for file in sorted(ROOT.rglob("*.py")):
        yield str(file.relative_to(ROOT)), ast.parse(file.read_text(encoding="utf-8"))


def of_the_cpu(name: str) -> bool:
    return any(name == place or name.startswith(f"{place}/") for place in OF_THE_CPU)


def is_torch(node: ast.AST, names: frozenset[str]) -> str:
    """The name of torch's function that a call is of; "" for any other."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name("torch"), attr=attr)) if attr in names:
            return attr
    return ""


def complaints(name: str, tree: ast.AST) -> list[str]:
    """What the rule has against a file."""
    if of_the_cpu(name):
        return []
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr="numpy" | "__array__")):
                if not _from_the_cpu(value):
                    found.append(f"{name}:{node.lineno} asks for an array before .cpu()")
            case ast.Call(func=ast.Attribute(attr="cuda")):
                found.append(f"{name}:{node.lineno} names one kind of device: use .to(device)")
        maker = is_torch(node, MAKERS)
        if maker and isinstance(node, ast.Call):
            if not any(word.arg == "device" for word in node.keywords):
                found.append(f"{name}:{node.lineno} torch.{maker} does not say on which device")
    return found


def _from_the_cpu(value: ast.AST) -> bool:
    """Whether an expression ends in what lies on the CPU: x.cpu(), x.cpu().contiguous() ..."""
    while isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr == "cpu":
            return True
        value = value.func.value
    return False


def test_every_tensor_says_where_it_is_made() -> None:
    found = [text for name, tree in sources() for text in complaints(name, tree)]
    assert not found, "\n".join(found)


def test_every_place_that_is_excused_is_there() -> None:
    assert all((ROOT / place).exists() for place in OF_THE_CPU)


@pytest.mark.parametrize(
    "line",
    [
        "x = values.numpy()",
        "x = values.detach().float().numpy()",
        "torch.zeros(3)",
        "y = torch.arange(n) * 2",
        "torch.randint(0, 2, (3,), generator=g)",
        "model.cuda()",
    ],
)
def test_the_rule_sees_what_breaks(line: str) -> None:
    assert complaints("criteria/new.py", ast.parse(line))


@pytest.mark.parametrize(
    "line",
    [
        "x = values.cpu().numpy()",
        "x = values.detach().cpu().contiguous().view(torch.uint8).numpy().data",
        'torch.zeros(3, device="cpu")',
        "torch.arange(n, device=x.device)",
        "torch.zeros_like(w)",
        "torch.randperm(n, generator=g)",
        "np.zeros(3)",
    ],
)
def test_the_rule_lets_the_rest_through(line: str) -> None:
    assert not complaints("criteria/new.py", ast.parse(line))
