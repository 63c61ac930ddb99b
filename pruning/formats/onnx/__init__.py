"""ONNX in: a graph and its weights as data, to a torch module of named layers.

    load      protobuf → nodes and constants, each claim judged against the bytes that are there
    facts     every value's shape at two batches; what needs no input is computed: shape arithmetic
    naming    layers named after weights, scopes and nodes
    program   the result as plain data: steps over an allow-list of layers and functions
    convert   nodes → steps, one short function an operator (layers, moves, pointwise)
    module    steps and weights → fx.GraphModule; the only file here that imports torch

All but `module` runs in the reading process, under its limits. What it writes is one safetensors
file with the steps in its metadata, and everything later reads only that.
"""
