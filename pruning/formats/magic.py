"""Magic bytes: what a file is, by its first bytes. No more of it is read here."""

from __future__ import annotations

from pruning.errors import FileRefused

SAFETENSORS = "safetensors"
TORCH = "PyTorch checkpoint"
ONNX = "ONNX"
KERAS = "Keras"
NETWORKS = (ONNX, KERAS)
"""Files that bring their architecture along."""

KERAS_MEMBERS = (b"metadata.json", b"config.json", b"model.weights.h5")
"""What the first member of a Keras file's zip is called."""

MEMBER = 30
"""Where the name of a zip's first member begins."""

FIRST_ONNX = 3
"""The version that every ONNX file begins with at least; TensorFlow's SavedModel has 1."""

HEAD = 512
"""How many bytes from the start are read."""

HOW_TO_SAVE = "save model.state_dict() with torch.save, or as safetensors"

MODULE = (
    "holds a whole pickled module{which}, which is a program: "
    "save model.state_dict() instead, e.g. torch.save(model.state_dict(), 'weights.pt')."
)
LEGACY = (
    "is in PyTorch's format from before 1.6, a bare pickle, which is a program: load it with a "
    "recent PyTorch and save it again with torch.save(model.state_dict(), 'weights.pt')."
)
UNREAD: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", "HDF5 (Keras .h5)"),
    (4, b"TFL3", "TensorFlow Lite"),
    (0, b"GGUF", "GGUF"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (0, b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (257, b"ustar", "tar"),
)
"""(offset, bytes, what it is), for formats that people have weights in and that are not read."""


def kind(head: bytes, length: int) -> str:
    """SAFETENSORS, TORCH, ONNX or KERAS, from a file's first HEAD bytes and its length in bytes.

    FileRefused for all else.
    """
    if not head:
        raise FileRefused("is empty: choose the file again, or save it again.")
    # Before the others: the length of a safetensors header may look like their magic bytes.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 40:
        return SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return KERAS if head[MEMBER:].startswith(KERAS_MEMBERS) else TORCH
    for offset, mark, name in UNREAD:
        if head[offset : offset + len(mark)] == mark:
            raise FileRefused(
                f"is a {name} file, and that is not read yet: in PyTorch, {HOW_TO_SAVE}."
            )
    if _protobuf(head) and head[1] >= FIRST_ONNX:
        return ONNX
    # A pickle of the number that torch.save wrote first of all before 1.6.
    if head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."):
        raise FileRefused(LEGACY)
    # Any other pickle: the opcode PROTO and a version.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise FileRefused(MODULE.format(which=" or another Python pickle"))
    raise FileRefused(f"is {_other(head, length)}: {HOW_TO_SAVE}.")


def _other(head: bytes, length: int) -> str:
    """In words, what a file is that holds no weights we read."""
    if head.startswith(b"PK"):
        return "an empty or damaged zip file"
    if _protobuf(head):
        return "a TensorFlow file, which is not read: convert it to ONNX with tf2onnx; in PyTorch"
    # Where the file goes on, a letter of up to four bytes may be cut in two at the end.
    end = length if length <= HEAD else HEAD - 4
    try:
        text = head[:end].decode("utf-8")
    except UnicodeDecodeError:
        return "no file of weights that is known here"
    readable = all(letter.isprintable() or letter in "\r\n\t\f" for letter in text)
    return "a text file, not weights" if readable else "no file of weights that is known here"


def _protobuf(head: bytes) -> bool:
    """Whether it begins like ONNX or TensorFlow's SavedModel.

    Both have their small version number as field 1, then a length-delimited field.
    """
    version = len(head) > 3 and head[0] == 0x08 and head[1] < 0x20
    return version and head[2] in (0x12, 0x1A, 0x3A, 0x42)
