"""A pickle, read as data: its stack is replayed, and nothing it names is looked up or called.

A pickle is a small program. What remains of it here is what people save: dictionaries, lists,
texts, numbers, and descriptions of tensors (which storage, where, what shape). An object of any
class (an optimizer, a loss, a configuration) is noted as one and left out, its attributes with it.
Python's own library is the exception, and so are all other functions: a file that calls those, as
a planted one does, is refused, though nothing of it would be called.
The opcodes are documented in Python's own pickletools
(https://docs.python.org/3/library/pickletools.html).
"""

from __future__ import annotations

import pickletools
import sys
from _compat_pickle import IMPORT_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.types import shown

BROKEN = "holds a broken pickle: save or download it again."


@dataclass(frozen=True)
class GlobalName:
    """The name of a class or function that the pickle mentions. It stays a name."""

    full: str


@dataclass(frozen=True)
class Opaque:
    """Something that is neither a plain value nor a tensor that is read.

    what: the name of what would have made it.
    """

    what: str


@dataclass(frozen=True)
class Instance(Opaque):
    """An object of a class that is no plain value: a module, an optimizer, a configuration."""


@dataclass(frozen=True)
class UnreadTensor:
    """A tensor that is not dense numbers; `what` says what it is, with the way out."""

    what: str


@dataclass(frozen=True)
class Storage:
    """A run of numbers in the zip, as the pickle claims it."""

    dtype: str
    key: str
    numbers: int


@dataclass(frozen=True)
class ClaimedTensor:
    """A tensor as the pickle claims it: nothing of this is true until it is judged."""

    storage: Any
    offset: Any
    shape: Any
    strides: Any


# ---------------------------------------------------------------- names that may occur

STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
    "torch.ComplexFloatStorage": "C64",
    "torch.ComplexDoubleStorage": "C128",
}

"""Storage classes -> safetensors' word for their dtype."""

_SPARSE = "a sparse tensor: call .to_dense() on it"
_DEVICE = "a tensor of another device: call .cpu() on it"
UNREAD = {
    "torch._utils._rebuild_sparse_tensor": _SPARSE,
    "torch._utils._rebuild_sparse_csr_tensor": _SPARSE,
    "torch._utils._rebuild_meta_tensor_no_storage": (
        "a tensor without numbers (on the meta device): save the real one"
    ),
    "torch._utils._rebuild_nested_tensor": "a nested tensor: call .to_padded_tensor() on it",
    "torch._utils._rebuild_qtensor": (
        "a quantised tensor: save the model from before it was quantised"
    ),
    "torch._utils._rebuild_wrapper_subclass": ("a tensor of a special kind: save plain tensors"),
    "torch._utils._rebuild_device_tensor_from_numpy": _DEVICE,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _DEVICE,
    "torch._utils._rebuild_tensor_v3": (
        "a tensor in a number format that is not read: save it as float32"
    ),
}
"""What makes an UnreadTensor, and what that is."""

_BUILTINS = "set frozenset bytearray complex slice dict list tuple int float str bool range object"
_HARMLESS: dict[str, str] = {
    "torch": """
        Size device Tensor float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool
        per_tensor_affine per_channel_affine per_tensor_symmetric per_channel_symmetric
        QInt8Storage QUInt8Storage QInt32Storage QUInt4x2Storage QUInt2x4Storage
    """,
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "torch.storage": "UntypedStorage TypedStorage",
    "torch._C": "Generator",
    "_codecs": "encode",
    "collections": "OrderedDict Counter defaultdict deque",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "functools": "partial",
    "numpy.random": "__RandomState_ctor",
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence",
    "uuid": "UUID",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "datetime": "datetime date time timedelta timezone",
    "pathlib": "Path PosixPath WindowsPath PurePosixPath PureWindowsPath",
    # Python 2 called its builtins __builtin__, and protocol 2 still does.
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,
}
HARMLESS = {f"{module}.{name}" for module, names in _HARMLESS.items() for name in names.split()}
"""Python's and torch's own values that checkpoints carry beside the weights; they are left out."""

PYTHON = sys.stdlib_module_names | {name.partition(".")[0] for name in IMPORT_MAPPING}
"""Modules of Python's own library, those of Python 2 too: protocol 2 writes their older names."""


# ---------------------------------------------------------------- the stack machine


def load(text: bytes) -> Any:
    """The value that a pickle describes.

    Made of dicts, lists, tuples, plain values, ClaimedTensors, UnreadTensors and Opaques.
    FileRefused for programs and for what is broken.
    """
    # genops only decodes opcodes: it is the standard library's disassembler, and runs nothing.
    machine = _Machine()
    # What a broken pickle makes pickletools or the machine raise.
    broken = (
        ValueError,
        IndexError,
        TypeError,
        AttributeError,
        OverflowError,
        KeyError,
        UnicodeError,
    )
    try:
        for steps, (opcode, argument, _) in enumerate(pickletools.genops(text)):
            if opcode.name == "STOP":
                return machine.pop()
            if steps > limits.STEPS:
                raise FileRefused(
                    f"takes over {limits.STEPS:,} steps to describe: "
                    "save only the model's state_dict()."
                )
            machine.step(opcode.name, argument)
    except broken:
        raise FileRefused(BROKEN) from None
    raise FileRefused(BROKEN)


_MARK = object()
"""Where a run of values begins that a later opcode takes together."""


class _Machine:
    """The stack and the memo that a pickle's opcodes work on.

    The methods that opcodes call take the opcode's argument, None where it has none.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(argument)
        elif opcode in _FRESH:
            self.stack.append(_FRESH[opcode]())
        elif opcode in _ACTIONS:
            _ACTIONS[opcode](self, argument)
        else:
            raise FileRefused(
                f"holds a pickle that is not read (it uses {opcode.lower()}): "
                "save it again with torch.save's defaults."
            )

    def pop(self) -> Any:
        value = self.top()
        del self.stack[-1]
        return value

    def top(self) -> Any:
        value = self.stack[-1]
        if value is _MARK:
            raise IndexError("a mark is no value")
        return value

    def pop_pair(self) -> list[Any]:
        """The two top values, the lower one first."""
        upper = self.pop()
        return [self.pop(), upper]

    def since_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError("no mark")
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def discard(self, _: None) -> None:
        """What lies on top, even a mark."""
        self.stack.pop()

    def discard_to_mark(self, _: None) -> None:
        self.since_mark()

    def tuple_of(self, count: int) -> None:
        """The top `count` values become one tuple."""
        values = [self.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(values)))

    def remember(self, key: int | None) -> None:
        # MEMOIZE, of protocol 4, counts by itself; the older opcodes bring the key.
        self.memo[len(self.memo) if key is None else key] = self.top()

    def recall(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def extend(self, values: list[Any]) -> None:
        target = self.top()
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            raise TypeError("only lists grow")

    def set_items(self, flat: list[Any]) -> None:
        """Keys and values in turn."""
        target = self.top()
        # A Counter or a Namespace: what it holds is left out, but its opcodes are usual.
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict) or len(flat) % 2:
            raise TypeError("only dictionaries take items")
        target.update(_items(flat))

    def global_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name is text")
        # Storages of a GPU hold the same numbers; the zip has them like all others.
        self.stack.append(GlobalName(f"{module}.{name}".replace("torch.cuda.", "torch.")))

    def call(self, _: None = None) -> None:
        """What a call would make, described: the call itself does not happen."""
        function, arguments = self.pop_pair()
        if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
            raise TypeError("only names are called")
        self.stack.append(_described(function.full, arguments))

    def call_with_keywords(self, _: None) -> None:
        """Keyword arguments lie on top, and are left out."""
        self.pop()
        self.call()

    def inst(self, full: str) -> None:
        """The oldest way to write a call: the arguments, then the name."""
        arguments = tuple(self.since_mark())
        self.stack.append(_described(full.replace(" ", "."), arguments))

    def obj(self, _: None) -> None:
        """The second oldest: a name, then the arguments."""
        function, *arguments = self.since_mark()
        self.stack.append(_described(function.full, tuple(arguments)))

    def build(self, _: None) -> None:
        """BUILD would set attributes, which are left out.

        Dictionaries carry such: a state_dict's versions.
        """
        self.pop()
        if not isinstance(self.top(), dict | Opaque | UnreadTensor | ClaimedTensor):
            raise TypeError("only objects have attributes")

    def storage(self, _: None) -> None:
        """torch.save's own objects: ("storage", class, key, device, count)."""
        word, kind, key, _device, numbers = self.pop()
        is_storage = word == "storage" and isinstance(kind, GlobalName)
        if not is_storage or not isinstance(key, str) or type(numbers) is not int:
            raise TypeError("not a storage")
        self.stack.append(Storage(STORAGES.get(kind.full, kind.full), key, numbers))


# Opcodes that push their argument.
_NUMBERS = "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT"
_STRINGS = "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8"
_BYTES = "BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8"
_CONSTANTS = {*_NUMBERS.split(), *_STRINGS.split(), *_BYTES.split()}

_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Opaque("set"),
}
"""Opcodes that push a value of their own."""

# m: the machine, a: the opcode's argument.
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, a: None),
    "MARK": lambda m, a: m.stack.append(_MARK),
    "POP": _Machine.discard,
    "POP_MARK": _Machine.discard_to_mark,
    "DUP": lambda m, a: m.stack.append(m.top()),
    "LIST": lambda m, a: m.stack.append(m.since_mark()),
    "TUPLE": lambda m, a: m.stack.append(tuple(m.since_mark())),
    "TUPLE1": lambda m, a: m.tuple_of(1),
    "TUPLE2": lambda m, a: m.tuple_of(2),
    "TUPLE3": lambda m, a: m.tuple_of(3),
    "DICT": lambda m, a: m.stack.append(_items(m.since_mark())),
    "FROZENSET": lambda m, a: m.stack.append(Opaque(f"a set of {len(m.since_mark())}")),
    "APPEND": lambda m, a: m.extend([m.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, a: m.extend(m.since_mark())),
    "SETITEM": lambda m, a: m.set_items(m.pop_pair()),
    "SETITEMS": lambda m, a: m.set_items(m.since_mark()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), _Machine.remember),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": lambda m, a: m.global_name(*a.split(" ", 1)),
    "STACK_GLOBAL": lambda m, a: m.global_name(*m.pop_pair()),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), _Machine.call),
    "NEWOBJ_EX": _Machine.call_with_keywords,
    "INST": _Machine.inst,
    "OBJ": _Machine.obj,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.storage,
}
"""All other opcodes that are read."""


# ---------------------------------------------------------------- what calls would make


def _described(full: str, arguments: tuple[Any, ...]) -> Any:
    """What calling `full` would have made: a dict, ClaimedTensor, UnreadTensor or Opaque.

    FileRefused for functions that weights and the usual values beside them do not need.
    """
    if full in RECONSTRUCTORS:
        return RECONSTRUCTORS[full](*arguments)
    if full in UNREAD:
        return UnreadTensor(UNREAD[full])
    if full in _RECONSTRUCT:
        return _instance(arguments)
    if full in HARMLESS or full in STORAGES:
        return Opaque(full)
    module, _, name = full.rpartition(".")
    # A class, by its capital letter. Those of Python's own library start processes and the like.
    if name[:1].isupper() and module.partition(".")[0] not in PYTHON:
        return Instance(full)
    raise FileRefused(call(full))


def call(full: str) -> str:
    """Why a file that calls a function is refused."""
    return (
        f"holds a pickled call of {shown(full)}, which is a program: save model.state_dict() alone "
        "instead, e.g. torch.save(model.state_dict(), 'weights.pt')."
    )


def _instance(arguments: tuple[Any, ...]) -> Any:
    """An object that protocols 0 and 1 write by the class that it is of."""
    made = arguments[0] if arguments else None
    if not isinstance(made, GlobalName):
        raise TypeError("only names are called")
    return _described(made.full, ())


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> ClaimedTensor:
    return ClaimedTensor(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Any:
    """A Parameter is its tensor."""
    return data


def _sizes(sizes: Any = (), *_: Any) -> Any:
    return sizes


def _ordered_dict(pairs: Any = (), *_: Any) -> dict[Any, Any]:
    if not isinstance(pairs, list | tuple) or not all(_is_pair(pair) for pair in pairs):
        raise TypeError("not a table")
    return _items([part for pair in pairs for part in pair])


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def _from_type(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    """A tensor with attributes of its own: the tensor without them."""
    if not isinstance(function, GlobalName) or not isinstance(arguments, tuple):
        raise TypeError("only names are called")
    # One such call inside another could go on without end.
    if function.full == "torch._tensor._rebuild_from_type_v2":
        raise TypeError("a tensor of a tensor of a tensor")
    return _described(function.full, arguments)


def _items(flat: list[Any]) -> dict[Any, Any]:
    """Keys and values in turn, as a dict."""
    if len(flat) % 2:
        raise TypeError("a key without a value")
    return dict(zip(map(_key, flat[::2]), flat[1::2], strict=True))


def _key(key: Any) -> Any:
    """A key that can be hashed at once. Classes, tensors and objects are only ever keys beside the
    weights: their kind stands for them.
    """
    if _is_plain(key):
        return key
    # Of plain values only: hashing a nest of tuples could take for ever.
    if isinstance(key, tuple) and all(map(_is_plain, key)):
        return key
    if isinstance(key, GlobalName | Opaque | UnreadTensor | ClaimedTensor):
        return f"<{type(key).__name__}>"
    raise TypeError("not plain keys")


def _is_plain(key: Any) -> bool:
    return key is None or isinstance(key, str | int | float | bytes)


_RECONSTRUCT = ("copyreg._reconstructor", "copy_reg._reconstructor")

RECONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _sizes,
}
"""Calls that are followed: their arguments make a tensor or a table."""
