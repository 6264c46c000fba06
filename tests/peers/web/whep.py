"""Publishes by WHIP and watches that by WHEP, twice at once: whep.py BASE [--name cam] [--model invert|passthrough]"""

import asyncio

from aiortc import RTCSessionDescription

from common import FIELDS, PATIENCE, Painted, Returned, connected, inverted, peer, run

SDP = {"Content-Type": "application/sdp"}


async def publish(api, name):
    pc = peer()
    pc.addTransceiver(Painted(), direction="sendonly")
    await pc.setLocalDescription(await pc.createOffer())
    _, headers, answer = await api.ask(
        "POST", f"/whip/{name}", status=201, data=pc.localDescription.sdp, headers=SDP
    )
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await connected(pc)
    return pc, headers["Location"]


async def watch(api, name):
    pc = peer()
    tracks = asyncio.Queue()
    pc.on("track", tracks.put_nowait)
    pc.addTransceiver("video", direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    _, headers, answer = await api.ask(
        "POST", f"/whep/{name}", status=201, data=pc.localDescription.sdp, headers=SDP
    )
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await connected(pc)
    return pc, headers["Location"], Returned(await asyncio.wait_for(tracks.get(), PATIENCE))


async def play(api, arguments):
    name = arguments.name
    await api.refused("POST", f"/whep/{name}", 404, "source_missing", data="v=0\r\n", headers=SDP)
    sender, location = await publish(api, name)
    wanted = FIELDS if arguments.model == "passthrough" else inverted(FIELDS)
    first, first_location, returned = await watch(api, name)
    frame, far = await returned.until(wanted)
    # One who comes later sees pictures at once, though nobody sends a key picture by itself.
    second, second_location, later = await watch(api, name)
    _, far_later = await later.until(wanted)
    fps = await later.rate()
    _, _, listed = await api.ask("GET", "/api/sources", status=200)
    source = next(source for source in listed["sources"] if source["name"] == name)
    # One who leaves is no matter to the other.
    deleted, _, _ = await api.ask("DELETE", first_location, status=200)
    await first.close()
    await api.gone(first_location.rsplit("/", 1)[1])
    left_fps = await later.rate(10)
    await api.ask("DELETE", second_location, status=200)
    await second.close()
    await api.ask("DELETE", location, status=200)
    await sender.close()
    gone_s = await api.gone(location.rsplit("/", 1)[1])
    after, _, _ = await api.ask("POST", f"/whep/{name}", data="v=0\r\n", headers=SDP)
    return {
        "far": far,
        "far_later": far_later,
        "size": [frame.width, frame.height],
        "fps": fps,
        "viewers": source["viewers"],
        "source": source,
        "deleted": deleted,
        "left_fps": left_fps,
        "gone_s": gone_s,
        "after": after,
    }


run(play, name="cam", model="invert")
