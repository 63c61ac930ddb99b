"""What a result is taken home as: a network's source, its weights, a sparse file, ONNX, a report.

Everything here opens without the workbench, but for `replay.py`, which runs it again.
"""
