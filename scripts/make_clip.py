#!/usr/bin/env python3
"""Makes the demo clip: ten seconds of slow camera moves over photographs, with a quiet tune.

    make_clip.py [--pictures FOLDER] [--out FILE]

640x360, 30 frames per second, 300 frames, H.264 and AAC in MP4. Real pictures, because models and encoders behave
differently on test patterns; sub-pixel motion, because a clip that jumps by whole pixels flatters the encoder. Once a
second a bell and a soft brightening of the picture begin together, so that a viewer can tell whether sound and
picture stayed aligned. Where the photographs come from: docs/media.md.
"""

import argparse
import pathlib
import subprocess
import sys
import tempfile
import wave

import numpy as np
from PIL import Image

WIDTH, HEIGHT, FPS, FRAMES = 640, 360, 30, 300
FADE = 20  # frames that two scenes share
RATE = 48_000

# Picture, then the view's centre (share of width, of height) and width (share of the widest view that fits), at the
# scene's beginning and end.
SCENES = [
    ("chelsea.png", (0.50, 0.42, 1.00), (0.44, 0.46, 0.62)),
    ("coffee.png", (0.40, 0.60, 0.66), (0.55, 0.48, 0.98)),
    ("astronaut.png", (0.56, 0.72, 1.00), (0.42, 0.30, 0.66)),
    ("rocket.jpg", (0.42, 0.66, 0.62), (0.50, 0.50, 1.00)),
]


def view(picture, begin, end, progress):
    """The picture as the camera sees it at `progress` 0..1, f32 RGB 0..255."""
    eased = progress * progress * (3 - 2 * progress)
    x, y, size = (b + (e - b) * eased for b, e in zip(begin, end))
    widest = min(picture.width, picture.height * WIDTH / HEIGHT)
    width, height = widest * size, widest * size * HEIGHT / WIDTH
    left = min(max(x * picture.width - width / 2, 0), picture.width - width)
    top = min(max(y * picture.height - height / 2, 0), picture.height - height)
    # resize takes a fractional box, and widens its kernel where the picture shrinks: no jumps, no shimmer.
    box = (left, top, left + width, top + height)
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS, box=box), np.float32)


def frames(pictures):
    """Every frame of the clip, u8 RGB."""
    span = (FRAMES + FADE * (len(SCENES) - 1)) / len(SCENES)
    for number in range(FRAMES):
        total, weights = np.zeros((HEIGHT, WIDTH, 3), np.float32), 0.0
        for index, (name, begin, end) in enumerate(SCENES):
            since = number - index * (span - FADE)
            if not 0 <= since < span:
                continue
            fade_in = 1.0 if index == 0 else min(since / FADE, 1.0)
            fade_out = 1.0 if index == len(SCENES) - 1 else min((span - since) / FADE, 1.0)
            total += view(pictures[name], begin, end, since / span) * (fade_in * fade_out)
            weights += fade_in * fade_out
        glow = 0.10 * max(0.0, 1 - (number % FPS) / 6)
        picture = total / weights
        yield np.clip(np.rint(picture + (255 - picture) * glow), 0, 255).astype(np.uint8)


def tune():
    """Stereo f64 -1..1, exactly as long as the picture: plucked chords, a bell at the top of each second."""
    count = RATE * FRAMES // FPS
    sound = np.zeros((count, 2))

    def pluck(at, frequency, loudness, decay, side):
        begin = round(at * RATE)
        if begin >= count:
            return
        t = np.arange(count - begin) / RATE
        partials = sum(np.sin(2 * np.pi * frequency * k * t) * np.exp(-t * decay * k) / k**2 for k in (1, 2, 3))
        note = partials * loudness * np.minimum(t * 400, 1)  # a soft start instead of a click
        sound[begin:] += np.outer(note, (1 - side, side))

    chords = [(60, 64, 67, 71), (57, 60, 64, 67), (53, 57, 60, 64), (55, 59, 62, 67), (60, 64, 67, 72)]
    for bar, chord in enumerate(chords):
        for step in range(8):
            note = chord[(0, 1, 2, 3, 2, 1, 3, 2)[step]]
            pluck(bar * 2 + step / 4, 440 * 2 ** ((note - 69) / 12), 0.16, 3.5, 0.3 + 0.05 * step)
        pluck(bar * 2, 440 * 2 ** ((chord[0] - 12 - 69) / 12), 0.20, 1.5, 0.5)
    for second in range(count // RATE):
        pluck(second, 1760, 0.10, 9.0, 0.5)
    fade = RATE // 2
    sound[-fade:] *= np.linspace(1, 0, fade)[:, None]
    return sound * (0.7 / np.abs(sound).max())


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--pictures", type=pathlib.Path, default=pathlib.Path(".work/pictures"))
    arguments.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".work/media/demo.mp4"))
    options = arguments.parse_args()
    pictures = {name: Image.open(options.pictures / name).convert("RGB") for name, _, _ in SCENES}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # Moved into place when whole, so that an interrupted run leaves no half clip that looks finished.
    part = options.out.with_suffix(".part.mp4")
    with tempfile.TemporaryDirectory(dir=options.out.parent) as folder:
        sound = pathlib.Path(folder) / "tune.wav"
        with wave.open(str(sound), "wb") as file:
            file.setnchannels(2)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(np.rint(tune() * 32767).astype("<i2").tobytes())
        encoder = subprocess.Popen(
            ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y"]
            + ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{WIDTH}x{HEIGHT}", "-framerate", str(FPS)]
            + ["-i", "-", "-i", str(sound)]
            # Numbers that players and decoders agree on: BT.709, limited range, and said so in the file.
            + ["-vf", "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p"]
            + ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709", "-color_range", "tv"]
            + ["-c:v", "libx264", "-preset", "medium", "-crf", "18", "-g", str(FPS)]
            + ["-c:a", "aac", "-b:a", "128k", "-movflags", "+faststart", str(part)],
            stdin=subprocess.PIPE,
        )
        try:
            for picture in frames(pictures):
                encoder.stdin.write(picture.tobytes())
            encoder.stdin.close()
        except BrokenPipeError:
            pass  # ffmpeg has said why, and its status says that it failed
        if encoder.wait() != 0:
            sys.exit("ffmpeg failed; its message is above")
    part.replace(options.out)
    print(f"{options.out}: {FRAMES} frames, {WIDTH}x{HEIGHT}, {FPS} per second, {options.out.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
