"""Keras 3 in: `.keras` files as data, to a torch module of named layers, without Keras.

    load      zip → config.json and the weights' HDF5, each claim judged against what is there
    layers    one short function a layer of an allow-list
    convert   Sequential and Functional → a program (see formats/onnx), as of an ONNX file

All of it runs in the reading process, under its limits. Keras's own loader, which builds whatever
the file names, is never called.
"""
