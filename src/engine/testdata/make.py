#!/usr/bin/env python3
"""Writes the models of the engine's tests into this folder. Needs `onnx`; writes the same bytes each time."""

import pathlib

from onnx import TensorProto as T, checker, helper as h

HERE = pathlib.Path(__file__).parent
OPSET = 18


def const(name, dtype, values, dims=()):
    return h.make_tensor(name, dtype, dims, values)


def info(name, dtype, dims):
    return h.make_tensor_value_info(name, dtype, dims)


def save(name, nodes, inputs, outputs, consts=(), metadata=None):
    graph = h.make_graph(nodes, name, inputs, outputs, list(consts))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", OPSET)], ir_version=8)
    if metadata:
        h.set_model_props(model, metadata)
    checker.check_model(model, full_check=True)
    path = HERE / f"{name}.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    print(path.name, path.stat().st_size)


def invert(name, dtype, dims, metadata=None):
    one = const("one", dtype, [1.0])
    nodes = [h.make_node("Sub", ["one", "image"], ["result"])]
    save(name, nodes, [info("image", dtype, dims)], [info("result", dtype, dims)], [one], metadata)


BCHW = ["batch", 3, "height", "width"]
BHWC = ["batch", "height", "width", 3]

invert("invert", T.FLOAT, BCHW)
invert("invert_f16", T.FLOAT16, BCHW)
invert("invert_two", T.FLOAT, [2, 3, "height", "width"])
invert("invert_sized", T.FLOAT, ["batch", 3, 4, 6])
invert("invert_single", T.FLOAT, [3, "height", "width"])
invert("four_channels", T.FLOAT, ["batch", 4, "height", "width"])
invert("vector", T.FLOAT, ["batch", 10])
invert("any_channels", T.FLOAT, ["batch", "channels", "height", "width"],
       {"comfy.layout": "BCHW", "comfy.order": "BGR", "comfy.range": "-1, 1"})

# In bytes, 255 - x is x with every bit turned.
save("invert_u8", [h.make_node("BitwiseNot", ["image"], ["result"])],
     [info("image", T.UINT8, BHWC)], [info("result", T.UINT8, BHWC)])

# The same picture, its mean per channel, and its shape per image (which no symbol tells).
save("two_outputs",
     [h.make_node("ReduceMean", ["image", "sides"], ["mean"], keepdims=0),
      h.make_node("Sub", ["one", "image"], ["result"])],
     [info("image", T.FLOAT, BCHW)],
     [info("mean", T.FLOAT, ["batch", 3]), info("result", T.FLOAT, BCHW)],
     [const("one", T.FLOAT, [1.0]), const("sides", T.INT64, [2, 3], (2,))])

# Twice as wide and high; the names of the output's dimensions tell nothing.
save("twice", [h.make_node("Resize", ["image", "", "scales"], ["result"], mode="nearest",
                           coordinate_transformation_mode="asymmetric", nearest_mode="floor")],
     [info("image", T.FLOAT, BCHW)], [info("result", T.FLOAT, ["n", 3, "y", "x"])],
     [const("scales", T.FLOAT, [1, 1, 2, 2], (4,))])

# As many places as there are pixels brighter, or darker, than one half.
for name, operator in (("places", "Greater"), ("dark_places", "Less")):
    save(name,
         [h.make_node(operator, ["image", "half"], ["chosen"]),
          h.make_node("NonZero", ["chosen"], ["across"]),
          h.make_node("Transpose", ["across"], ["long"], perm=[1, 0]),
          h.make_node("Unsqueeze", ["long", "zero"], ["places"]),
          h.make_node("Sub", ["one", "image"], ["result"])],
         [info("image", T.FLOAT, [1, 3, "height", "width"])],
         [info("places", T.INT64, [1, "n", 4]), info("result", T.FLOAT, [1, 3, "height", "width"])],
         [const("one", T.FLOAT, [1.0]), const("half", T.FLOAT, [0.5]), const("zero", T.INT64, [0], (1,))])

# As many rounds as the brightest value says: 1 for a picture, hours for 1e12. For tests of interruption.
body = h.make_graph(
    [h.make_node("Identity", ["go_in"], ["go_out"]), h.make_node("Sub", ["one", "x_in"], ["x_out"])],
    "body",
    [info("i", T.INT64, []), info("go_in", T.BOOL, []), info("x_in", T.FLOAT, BCHW)],
    [info("go_out", T.BOOL, []), info("x_out", T.FLOAT, BCHW)])
save("rounds",
     [h.make_node("ReduceMax", ["image"], ["brightest"], keepdims=0),
      h.make_node("Ceil", ["brightest"], ["up"]),
      h.make_node("Cast", ["up"], ["count"], to=T.INT64),
      h.make_node("Loop", ["count", "go", "image"], ["result"], body=body)],
     [info("image", T.FLOAT, BCHW)], [info("result", T.FLOAT, BCHW)],
     [const("one", T.FLOAT, [1.0]), const("go", T.BOOL, [True])])

# An output that does not grow with the batch; two inputs.
save("whole_batch",
     [h.make_node("ReduceMean", ["image", "all"], ["mean"], keepdims=0),
      h.make_node("Sub", ["one", "image"], ["result"])],
     [info("image", T.FLOAT, BCHW)], [info("mean", T.FLOAT, [3]), info("result", T.FLOAT, BCHW)],
     [const("one", T.FLOAT, [1.0]), const("all", T.INT64, [0, 2, 3], (3,))])
save("two_inputs", [h.make_node("Mul", ["image", "strength"], ["result"])],
     [info("image", T.FLOAT, BCHW), info("strength", T.FLOAT, ["batch", 1, 1, 1])], [info("result", T.FLOAT, BCHW)])
