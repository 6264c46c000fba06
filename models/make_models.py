#!/usr/bin/env python3
"""Writes the sample models of this folder, byte for byte the same each time.

    make_models.py           writes every *.onnx
    make_models.py --check   compares with what is there; status 1 and the names on a difference

Each model is built by hand from ONNX operators (opset 17, IR 8), without a training framework: small enough to
read, quick to remake. The manifests beside them (*.toml) are written by hand. Needs the packages that
scripts/requirements.txt pins; another release of `onnx` may order bytes differently.
"""

import argparse
import pathlib
import sys

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601, as the eye weighs R, G and B
PICTURE = ["batch", 3, "height", "width"]


class Net:
    """A graph under construction. Calls append nodes and return the name of the result."""

    def __init__(self, name, inputs, outputs):
        self.name, self.inputs, self.outputs = name, inputs, outputs
        self.nodes, self.weights, self.seen = [], [], 0

    def fresh(self, stem):
        self.seen += 1
        return f"{stem}_{self.seen}"

    def const(self, value, dtype=np.float32):
        name = self.fresh("c")
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def __call__(self, op, *inputs, result=None, **attributes):
        """Appends `op`; numbers and arrays among the inputs become f32 constants."""
        inputs = [i if isinstance(i, str) else self.const(i) for i in inputs]
        result = result or self.fresh(op.lower())
        self.nodes.append(helper.make_node(op, inputs, [result], name=f"{op}_{len(self.nodes)}", **attributes))
        return result

    def pad(self, x, n, mode="reflect"):
        """Pads height and width by repeating the picture: zeros would leave a dark border after a convolution."""
        return self("Pad", x, self.const([0, 0, n, n, 0, 0, n, n], np.int64), mode=mode)

    def conv(self, x, kernel, bias=None, pad="reflect", dilation=1, stride=1, group=1):
        """Convolution that keeps the size, or at stride 2 halves it, rounding up."""
        kernel = np.asarray(kernel, np.float32)
        reach = (kernel.shape[-1] // 2) * dilation
        if reach:
            x = self.pad(x, reach, pad)
        operands = [x, kernel] + ([] if bias is None else [np.asarray(bias, np.float32)])
        return self(
            "Conv",
            *operands,
            kernel_shape=list(kernel.shape[2:]),
            strides=[stride] * 2,
            dilations=[dilation] * 2,
            group=group,
        )

    def clip(self, x, result=None):
        return self("Clip", x, 0.0, 1.0, result=result)

    def cast(self, x, dtype, result=None):
        return self("Cast", x, result=result, to=dtype)

    def dims(self, x, first, last):
        """Dimensions `first` up to, not including, `last` of `x` at run time."""
        return self("Shape", x, start=first, end=last)

    def resize_like(self, x, like, mode, **attributes):
        """Resizes height and width of `x` to those of `like`, whatever they are."""
        sizes = self("Concat", self.dims(x, 0, 2), self.dims(like, 2, 4), axis=0)
        return self("Resize", x, "", "", sizes, mode=mode, **attributes)

    def bytes(self):
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info(*i) for i in self.inputs],
            [helper.make_tensor_value_info(*o) for o in self.outputs],
            self.weights,
        )
        model = helper.make_model(
            graph,
            ir_version=8,
            opset_imports=[helper.make_opsetid("", 17)],
            producer_name="gst-comfy",
            producer_version="1",
            doc_string="Sample model of gst-comfy, made by models/make_models.py. MPL-2.0.",
        )
        checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)


def image_net(name, result, size=("height", "width"), batch="batch"):
    """A net from picture to picture, f32 BCHW 0..1."""
    return Net(
        name,
        [("image", TensorProto.FLOAT, [batch, 3, "height", "width"])],
        [(result, TensorProto.FLOAT, [batch, 3, *size])],
    )


def invert():
    net = image_net("invert", "inverted")
    net("Sub", 1.0, "image", result="inverted")
    return net


def invert_u8():
    """Bytes in, bytes out, colours last: the shape of a video frame as it lies in memory."""
    shape = ["batch", "height", "width", 3]
    net = Net("invert-u8", [("image", TensorProto.UINT8, shape)], [("inverted", TensorProto.UINT8, shape)])
    # ONNX allows Sub on bytes, but runtimes implement it for f32 only.
    x = net("Sub", 255.0, net.cast("image", TensorProto.FLOAT))
    net.cast(x, TensorProto.UINT8, result="inverted")
    return net


NEIGHBOURS = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]


def smooth(net, x, dilation, tolerance):
    """One bilateral-like pass: each pixel moves towards those of its 8 neighbours that have a similar colour.

    All of it is convolution: a depthwise one takes the differences to the neighbours, 1x1 ones sum the colour
    distance over channels, spread the weight back over them, and gather the result.
    """
    shifts = np.zeros((24, 1, 3, 3), np.float32)
    over_colours = np.zeros((8, 24, 1, 1), np.float32)
    gather = np.zeros((3, 24, 1, 1), np.float32)
    for channel in range(3):
        for n, (row, column) in enumerate(NEIGHBOURS):
            near = 1.0 if row == 1 or column == 1 else 0.7
            shifts[channel * 8 + n, 0, row, column] = 1.0
            shifts[channel * 8 + n, 0, 1, 1] = -1.0
            over_colours[n, channel * 8 + n] = 1.0
            gather[channel, channel * 8 + n] = near
    total = np.array([1.0 if r == 1 or c == 1 else 0.7 for r, c in NEIGHBOURS], np.float32).reshape(1, 8, 1, 1)
    difference = net.conv(x, shifts, dilation=dilation, group=3)
    distance = net.conv(net("Mul", difference, difference), over_colours)
    weight = net("Exp", net("Mul", distance, -1.0 / (2.0 * tolerance**2)))
    pull = net.conv(net("Mul", difference, net.conv(weight, over_colours.transpose(1, 0, 2, 3))), gather)
    return net("Add", x, net("Div", pull, net("Add", net.conv(weight, total), 1.0)))


def cartoon():
    """Flat colours in eight tones under dark outlines.

    Smoothing runs at half size, where a pass reaches twice as far for a quarter of the work; outlines are found and
    drawn at full size, which hides that.
    """
    net = image_net("cartoon", "cartoon")
    half = net("Resize", "image", "", np.array([1, 1, 0.5, 0.5], np.float32), mode="linear")
    for dilation, tolerance in ((1, 0.13), (2, 0.11), (1, 0.10)):
        half = smooth(net, half, dilation, tolerance)
    flat = net.resize_like(half, "image", "linear")

    luma = net.conv(flat, LUMA.reshape(1, 3, 1, 1))
    # A share of the unsmoothed picture gives thin things their outline, which half size has swallowed.
    fine = net.conv("image", LUMA.reshape(1, 3, 1, 1))
    drawn = net("Add", net("Mul", luma, 0.65), net("Mul", fine, 0.35))
    sobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32) / 4
    slope = net.conv(drawn, np.stack([sobel, sobel.T]).reshape(2, 1, 3, 3))
    steep = net("Sqrt", net.conv(net("Mul", slope, slope), np.ones((1, 2, 1, 1), np.float32)))
    # Steepness counts for more in the dark, as the eye sees it. Nothing below the first threshold, so that noise
    # draws no lines; full ink from the second on.
    steep = net("Div", steep, net("Add", luma, 0.35))
    ink = net.clip(net("Mul", net("Sub", steep, 0.08), 1 / 0.10))

    # Posterised in brightness alone: per channel it would paint false colours along each step. Between two of the
    # eight tones a short slope instead of a jump keeps the border from flickering in video.
    scaled = net("Mul", luma, 8.0)
    tone = net("Floor", scaled)
    step = net.clip(net("Mul", net("Sub", net("Sub", scaled, tone), 0.35), 1 / 0.3))
    tones = net("Mul", net("Add", tone, step), 1 / 8.0)
    lift = net("Div", net("Add", tones, 0.02), net("Add", luma, 0.02))
    painted = net("Mul", flat, lift)
    grey = net.conv(painted, LUMA.reshape(1, 3, 1, 1))
    vivid = net("Add", grey, net("Mul", net("Sub", painted, grey), 1.2))
    net.clip(net("Mul", vivid, net("Sub", 1.0, net("Mul", ink, 0.85))), result="cartoon")
    return net


class Dice:
    """Pseudo-random weights from integer arithmetic alone, the same on every machine and numpy release."""

    def __init__(self, seed):
        self.state = np.uint64(seed)

    def uniform(self, *shape):
        """Numbers in -1..1 (SplitMix64, upper 24 bits)."""
        count = int(np.prod(shape))
        with np.errstate(over="ignore"):
            step = np.uint64(0x9E3779B97F4A7C15)
            z = self.state + step * np.arange(1, count + 1, dtype=np.uint64)
            self.state = z[-1]
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z ^= z >> np.uint64(31)
        whole = (z >> np.uint64(40)).astype(np.int64) - (1 << 23)
        return (whole.astype(np.float32) / np.float32(1 << 23)).reshape(shape)


def soft(kernels):
    """Blurs 9x9 kernels within their window, strength kept: raw noise in a large kernel makes a grainy picture."""
    taps = np.array([1, 4, 6, 4, 1], np.float32) / np.float32(16)
    for axis in (2, 3):
        wide = np.pad(kernels, [(0, 0)] * axis + [(2, 2)] + [(0, 0)] * (3 - axis))
        parts = [np.take(wide, range(i, i + 9), axis) * tap for i, tap in enumerate(taps)]
        kernels = parts[0] + parts[1] + parts[2] + parts[3] + parts[4]
    return kernels / np.float32(0.27)  # the blur's own share of a random kernel's strength


def style():
    """The shape of a style-transfer network, heavy enough that the engine is what a pipeline waits for."""
    net = image_net("style", "styled")
    dice = Dice(20)

    def layer(x, entries, results, size=3, stride=1, relu=True):
        # He's uniform bound keeps the spread of values through the layers.
        bound = np.float32(np.sqrt(6.0 / (entries * size * size)))
        weights = dice.uniform(results, entries, size, size) * bound
        weights = soft(weights) if size == 9 else weights
        x = net.conv(x, weights, dice.uniform(results) * np.float32(0.1), stride=stride)
        x = net("InstanceNormalization", x, np.ones(results), np.zeros(results), epsilon=1e-3)
        return net("Relu", x) if relu else x

    full = layer("image", 3, 16, size=9)
    half = layer(full, 16, 32, stride=2)
    x = layer(half, 32, 64, stride=2)
    for _ in range(2):
        x = net("Add", x, layer(layer(x, 64, 64), 64, 64, relu=False))
    # Back to the very sizes of the way down, so that height and width need not be multiples of 4.
    nearest = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    x = layer(net.resize_like(x, half, **nearest), 64, 32)
    x = layer(net.resize_like(x, full, **nearest), 32, 16)
    bound = np.float32(0.3 * np.sqrt(3.0 / (16 * 81)))  # small enough that Tanh is seldom at its ends
    stroke = net("Tanh", net.conv(x, soft(dice.uniform(3, 16, 9, 9) * bound)))
    net.clip(net("Add", "image", net("Mul", stroke, 0.35)), result="styled")
    return net


def lanczos(distance, lobes=3):
    return np.where(np.abs(distance) < lobes, np.sinc(distance) * np.sinc(distance / lobes), 0.0)


def upscale2x():
    """Twice the size: a Lanczos kernel for each of the four new pixels, sharpened, kept within its surroundings."""
    net = image_net("upscale2x", "upscaled", size=("height2", "width2"))
    # New pixel centres lie a quarter to either side of the old one.
    taps = np.stack([lanczos(np.arange(-3, 4) + 0.25), lanczos(np.arange(-3, 4) - 0.25)])
    taps /= taps.sum(axis=1, keepdims=True)
    # Rounded, because the last bit of a sine differs between mathematics libraries.
    phases = np.round([np.outer(row, column) for row in taps for column in taps], 6)
    kernels = np.tile(phases.reshape(1, 4, 1, 7, 7), (3, 1, 1, 1, 1)).reshape(12, 1, 7, 7)
    shuffle = dict(blocksize=2, mode="CRD")
    large = net("DepthToSpace", net.conv("image", kernels, pad="edge", group=3), **shuffle)

    blur = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256.0
    sharpen = -0.8 * blur
    sharpen[2, 2] += 1.8
    sharp = net.conv(large, np.tile(sharpen.reshape(1, 1, 5, 5), (3, 1, 1, 1)), pad="edge", group=3)

    # Lanczos and sharpening overshoot at edges, which shows as bright and dark halos. The darkest and brightest of
    # the nine old pixels around bound what a new one may be.
    window = dict(kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    brightest = net("MaxPool", "image", **window)
    darkest = net("Neg", net("MaxPool", net("Neg", "image"), **window))
    twice = np.array([1, 1, 2, 2], np.float32)
    nearest = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    bounded = net("Min", sharp, net("Resize", brightest, "", twice, **nearest))
    net("Max", bounded, net("Resize", darkest, "", twice, **nearest), result="upscaled")
    return net


def fixed_batch2():
    """Always two pictures per run, as engines built for one batch size demand. The effect is a warm sepia."""
    net = image_net("fixed-batch2", "sepia", batch=2)
    sepia = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]], np.float32)
    mix = 0.85 * sepia + 0.15 * np.eye(3, dtype=np.float32)
    net.clip(net.conv("image", mix.reshape(3, 3, 1, 1)), result="sepia")
    return net


def tensor_out():
    """Answers with numbers instead of a picture: colour statistics, and where the brightest pixel is."""
    net = Net(
        "tensor-out",
        [("image", TensorProto.FLOAT, PICTURE)],
        [("stats", TensorProto.FLOAT, ["batch", 6]), ("brightest", TensorProto.INT64, ["batch", 1])],
    )
    mean = net("ReduceMean", "image", axes=[2, 3], keepdims=1)
    away = net("Sub", "image", mean)
    variance = net("ReduceMean", net("Mul", away, away), axes=[2, 3], keepdims=1)
    both = net("Concat", mean, net("Sqrt", variance), axis=1)
    net("Flatten", both, axis=1, result="stats")
    luma = net.conv("image", LUMA.reshape(1, 3, 1, 1))
    net("ArgMax", net("Flatten", luma, axis=1), axis=1, keepdims=1, result="brightest")
    return net


MODELS = {
    "invert": invert,
    "invert-u8": invert_u8,
    "cartoon": cartoon,
    "style": style,
    "upscale2x": upscale2x,
    "fixed-batch2": fixed_batch2,
    "tensor-out": tensor_out,
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="compare only; status 1 on a difference")
    check = arguments.parse_args().check
    different = []
    for name, build in MODELS.items():
        path, made = HERE / f"{name}.onnx", build().bytes()
        if check:
            if not path.exists() or path.read_bytes() != made:
                different.append(path.name)
        else:
            path.write_bytes(made)
            print(f"{path.name:20} {len(made):8} bytes")
    if different:
        sys.exit(f"not what make_models.py writes: {', '.join(different)}. Run it without --check and commit.")


if __name__ == "__main__":
    main()
