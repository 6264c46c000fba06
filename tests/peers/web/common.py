"""What the scripts beside this one share: pictures of known colours, what comes back of them, HTTP, and one JSON result.

Each script prints one JSON object and ends with 0, or with 1 and `"ok": false` and what went wrong. They speak aiortc,
whose SDP, ICE, DTLS and codecs are not ours, and aiohttp.
"""

import argparse
import asyncio
import json
import sys
import time
import traceback

import aiohttp
import av
import numpy
from aiortc import RTCConfiguration, RTCPeerConnection, VideoStreamTrack

#: Longest wait for anything.
PATIENCE = 20
#: What a picture is made of: four fields, left to right, top to bottom.
FIELDS = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60)]
#: A colour that went through two encoders and two conversions.
NEAR = 24


def inverted(fields):
    return [tuple(255 - value for value in field) for field in fields]


class Painted(VideoStreamTrack):
    """A camera that shows the four fields."""

    def __init__(self, width=320, height=240):
        super().__init__()
        picture = numpy.zeros((height, width, 3), numpy.uint8)
        rows, columns = height // 2, width // 2
        picture[:rows, :columns], picture[:rows, columns:] = FIELDS[0], FIELDS[1]
        picture[rows:, :columns], picture[rows:, columns:] = FIELDS[2], FIELDS[3]
        self.picture = picture

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame.from_ndarray(self.picture, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


def colours(frame):
    """The colour in the middle of each field."""
    pixels = frame.to_ndarray(format="rgb24").astype(int)
    height, width = pixels.shape[:2]
    found = []
    for row, column in ((1, 1), (1, 3), (3, 1), (3, 3)):
        y, x = row * height // 4, column * width // 4
        found.append(tuple(int(value) for value in pixels[y - 8 : y + 8, x - 8 : x + 8].mean(axis=(0, 1)).round()))
    return found


def distance(some, others):
    return max(abs(a - b) for one, other in zip(some, others) for a, b in zip(one, other))


class Returned:
    """The frames of a track that comes back."""

    def __init__(self, track):
        self.track = track
        self.count = 0

    async def frame(self):
        frame = await asyncio.wait_for(self.track.recv(), PATIENCE)
        self.count += 1
        return frame

    async def until(self, wanted):
        """Reads until the pictures have these colours; what is still on its way when something changes does not."""
        end = time.monotonic() + PATIENCE
        while True:
            frame = await self.frame()
            far = distance(colours(frame), wanted)
            if far <= NEAR:
                return frame, far
            if time.monotonic() > end:
                raise AssertionError(f"shows {colours(frame)}, wanted {wanted}")

    async def rate(self, frames=30):
        await self.frame()
        begin = time.monotonic()
        for _ in range(frames):
            await self.frame()
        return round(frames / (time.monotonic() - begin), 1)


def peer():
    # No STUN server: nothing outside this machine is asked.
    return RTCPeerConnection(RTCConfiguration(iceServers=[]))


async def connected(pc):
    done = asyncio.Event()

    @pc.on("connectionstatechange")
    def look():
        if pc.connectionState in ("connected", "failed", "closed"):
            done.set()

    look()
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert pc.connectionState == "connected", pc.connectionState


async def until(what, look):
    """Asks until it is so; what happens beside requests is seen by asking again."""
    begin = time.monotonic()
    while not await look():
        assert time.monotonic() - begin < PATIENCE, what
        await asyncio.sleep(0.05)
    return round(time.monotonic() - begin, 2)


class Api:
    """The service, over HTTP."""

    def __init__(self, base):
        self.base = base.rstrip("/")

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE))
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def ask(self, method, path, *, status=None, **rest):
        """Status, headers and body, parsed where it is JSON. `status` is what it has to be."""
        async with self.session.request(method, self.base + path, **rest) as response:
            text = await response.text()
            body = json.loads(text) if response.content_type == "application/json" else text
            assert status in (None, response.status), f"{method} {path}: {response.status} {text}"
            return response.status, response.headers, body

    async def refused(self, method, path, status, code, **rest):
        """That it is refused, and as docs/API.md says that refusals are."""
        _, _, body = await self.ask(method, path, status=status, **rest)
        error = body["error"]
        assert error["code"] == code and error["message"] and error["hint"], f"{method} {path}: {body}"
        return error

    async def ready(self):
        async def look():
            return (await self.ask("GET", "/health"))[0] == 200

        await until("the service is ready", look)

    async def gone(self, session):
        async def look():
            return (await self.ask("GET", f"/api/sessions/{session}"))[0] == 404

        return await until(f"session {session} is gone", look)


def run(play, **options):
    """Calls `play(api, arguments)`, and prints what it gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("base")
    for name, default in options.items():
        parser.add_argument(f"--{name}", default=default)
    arguments = parser.parse_args()

    async def main():
        async with Api(arguments.base) as api:
            await api.ready()
            return await play(api, arguments)

    try:
        result = {"ok": True, **asyncio.run(main())}
    except BaseException as error:  # noqa: BLE001 whatever it is, it is the result
        result = {"ok": False, "error": repr(error), "trace": traceback.format_exc()}
    print(json.dumps(result), flush=True)
    sys.exit(0 if result["ok"] else 1)
