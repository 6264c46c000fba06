#!/usr/bin/env python3
"""How fast is the Python path that a user has today: numpy and ONNX Runtime on the same model and pictures?

    baseline.py --model M.onnx --raw FRAMES.rgb --size 640x360 --batch 1,2,4 --frames 300 --style plain --json out.json

FRAMES.rgb holds u8 RGB frames one after the other (ffmpeg -i clip -pix_fmt rgb24 -f rawvideo), repeated when shorter
than --frames. Each batch goes u8 -> what the model wants -> ONNX Runtime -> u8, rounded to nearest as our elements do.

plain  as such loops are written: a new array per step, default session options
tuned  arrays reused, ONNX Runtime's input and output bound once, no spinning threads

Reported: the best pass and every pass, in frames per second; wall milliseconds per frame for each of the three steps
and CPU milliseconds per frame, from the best pass. Decoding and loading lie outside the timed region.
"""

import argparse
import json
import os
import pathlib
import platform
import time

import numpy as np
import onnxruntime as ort


def integers(text):
    return [int(part) for part in text.split(",")]


def size(text):
    width, height = text.lower().split("x")
    return int(width), int(height)


class Plain:
    """New arrays at each step."""

    def __init__(self, session, bytes_last, frames):
        self.session, self.bytes_last = session, bytes_last
        self.input, self.output = session.get_inputs()[0].name, session.get_outputs()[0].name

    def convert(self, frames):
        if self.bytes_last:
            return np.stack(frames)
        return np.stack(frames).transpose(0, 3, 1, 2).astype(np.float32) / 255.0

    def infer(self, tensor):
        return self.session.run([self.output], {self.input: tensor})[0]

    def back(self, tensor):
        if self.bytes_last:
            return tensor
        pixels = np.clip(np.rint(tensor.transpose(0, 2, 3, 1) * 255.0), 0, 255).astype(np.uint8)
        # Until here only the strides are those of frames; encoders and screens want the bytes in that order too.
        return np.ascontiguousarray(pixels)


class Tuned:
    """Everything allocated and bound once, for one batch size."""

    def __init__(self, session, bytes_last, frames):
        self.session, self.bytes_last = session, bytes_last
        count, (height, width, _) = len(frames), frames[0].shape
        if bytes_last:
            self.tensor = np.empty((count, height, width, 3), np.uint8)
        else:
            self.tensor = np.zeros((count, 3, height, width), np.float32)
        source, result = session.get_inputs()[0], session.get_outputs()[0]
        # One run tells the size of the result, which the model may change.
        made = session.run([result.name], {source.name: self.tensor})[0]
        self.made = np.empty_like(made)
        if not bytes_last:
            self.scaled = np.empty_like(made)
            self.planes = np.empty(made.shape, np.uint8)
            self.pixels = np.empty((made.shape[0], *made.shape[2:], made.shape[1]), np.uint8)
        self.binding = session.io_binding()
        for bind, name, array in (
            (self.binding.bind_input, source.name, self.tensor),
            (self.binding.bind_output, result.name, self.made),
        ):
            bind(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)

    def convert(self, frames):
        for slot, frame in zip(self.tensor, frames):
            if self.bytes_last:
                np.copyto(slot, frame)
            else:
                np.multiply(frame.transpose(2, 0, 1), np.float32(1 / 255), out=slot)
        return self.tensor

    def infer(self, tensor):
        self.session.run_with_iobinding(self.binding)
        return self.made

    def back(self, tensor):
        if self.bytes_last:
            return tensor
        np.multiply(tensor, np.float32(255), out=self.scaled)
        np.rint(self.scaled, out=self.scaled)
        np.clip(self.scaled, 0, 255, out=self.scaled)
        np.copyto(self.planes, self.scaled, casting="unsafe")
        # Bytes, channel by channel: half the time of one transposed copy from f32.
        for channel in range(3):
            self.pixels[..., channel] = self.planes[:, channel]
        return self.pixels


def one_pass(path, frames, batch, count):
    """Runs `count` frames, whole batches only; the figures of that pass."""
    # The checksum shows that both styles, and every pass, made the same pixels.
    split = dict(convert=0.0, infer=0.0, back=0.0)
    done, checksum = 0, 0
    cpu, begin = time.process_time(), time.perf_counter()
    while done < count:
        chosen = [frames[(done + i) % len(frames)] for i in range(batch)]
        t0 = time.perf_counter()
        tensor = path.convert(chosen)
        t1 = time.perf_counter()
        made = path.infer(tensor)
        t2 = time.perf_counter()
        pixels = path.back(made)
        t3 = time.perf_counter()
        split["convert"] += t1 - t0
        split["infer"] += t2 - t1
        split["back"] += t3 - t2
        checksum += int(pixels[0, 0, 0, 0])
        done += batch
    wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
    per_frame = {f"{step}_ms": seconds * 1000 / done for step, seconds in split.items()}
    return dict(fps=done / wall, frames=done, cpu_ms=cpu * 1000 / done, checksum=checksum, **per_frame)


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--model", type=pathlib.Path, required=True)
    arguments.add_argument("--raw", type=pathlib.Path, required=True, help="u8 RGB frames, one after the other")
    arguments.add_argument("--size", type=size, required=True, help="WIDTHxHEIGHT of the frames in --raw")
    arguments.add_argument("--batch", type=integers, default=[1, 2, 4], help="batch sizes, by comma")
    arguments.add_argument("--frames", type=int, default=300, help="frames per pass")
    arguments.add_argument("--passes", type=int, default=3)
    arguments.add_argument("--style", choices=["plain", "tuned"], default="plain")
    arguments.add_argument("--threads", type=int, default=0, help="ONNX Runtime's threads; 0 = its own choice")
    arguments.add_argument("--json", type=pathlib.Path, help="where the report goes; standard output without it")
    options = arguments.parse_args()

    width, height = options.size
    raw = np.fromfile(options.raw, np.uint8)
    # More than a few dozen frames add no variety and would fill the memory at large sizes.
    whole = min(raw.size // (width * height * 3), 64)
    if whole == 0:
        arguments.error(f"{options.raw} holds less than one frame of {width}x{height} RGB")
    frames = list(raw[: whole * width * height * 3].reshape(whole, height, width, 3))

    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.threads
    if options.style == "tuned":
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(str(options.model), settings, providers=["CPUExecutionProvider"])
    bytes_last = session.get_inputs()[0].type == "tensor(uint8)"

    runs = []
    for batch in options.batch:
        warm = [frames[i % whole] for i in range(batch)]
        path = (Plain if options.style == "plain" else Tuned)(session, bytes_last, warm)
        one_pass(path, frames, batch, batch * 3)
        passes = [one_pass(path, frames, batch, options.frames) for _ in range(options.passes)]
        best = max(passes, key=lambda p: p["fps"])
        runs.append(dict(batch=batch, best=best, fps_passes=[p["fps"] for p in passes]))
    report = dict(
        what="numpy + ONNX Runtime",
        style=options.style,
        model=options.model.name,
        width=width,
        height=height,
        threads=options.threads,
        cores=os.cpu_count(),
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=ort.__version__,
        runs=runs,
    )
    text = json.dumps(report, indent=2)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
