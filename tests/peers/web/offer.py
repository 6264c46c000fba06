"""POST /offer as ComfyStream's clients and others do it: offer.py BASE [--shape comfystream|bare] [--model NAME]

comfystream: {"prompts", "offer": {"sdp", "type"}}, control messages on the data channel, and the picture follows them.
bare:        {"sdp", "type"}; the service's own model.
"""

import asyncio
import json

from aiortc import RTCSessionDescription

from common import FIELDS, PATIENCE, Painted, Returned, connected, inverted, peer, run


def node(kind, **inputs):
    return {"inputs": inputs, "class_type": kind, "_meta": {"title": kind}}


PASS = {"1": node("LoadTensor"), "2": node("SaveTensor", images=["1", 0])}
INVERT = {"1": node("LoadTensor"), "2": node("ImageInvert", image=["1", 0]), "3": node("SaveTensor", images=["2", 0])}


async def play(api, arguments):
    shape = arguments.shape
    pc = peer()
    tracks = asyncio.Queue()
    pc.on("track", tracks.put_nowait)
    pc.addTransceiver(Painted(), direction="sendrecv")
    control = pc.createDataChannel("control")
    opened, heard = asyncio.Event(), asyncio.Queue()
    control.on("open", opened.set)
    control.on("message", heard.put_nowait)
    # Gathers to its end: aiortc does not trickle.
    await pc.setLocalDescription(await pc.createOffer())
    offer = {"sdp": pc.localDescription.sdp, "type": pc.localDescription.type}
    body = offer if shape == "bare" else {"prompts": [PASS], "offer": offer}
    _, headers, answer = await api.ask("POST", "/offer", status=200, json=body)
    assert answer["type"] == "answer", answer
    await pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
    await connected(pc)
    returned = Returned(await asyncio.wait_for(tracks.get(), PATIENCE))
    await asyncio.wait_for(opened.wait(), PATIENCE)

    async def say(text, kind):
        control.send(text)
        while True:
            message = json.loads(await asyncio.wait_for(heard.get(), PATIENCE))
            if message["type"] == kind:
                return message

    result = {"answer": sorted(answer), "content_type": headers["Content-Type"]}
    if shape == "bare":
        wanted = FIELDS if arguments.model == "passthrough" else inverted(FIELDS)
        frame, result["far"] = await returned.until(wanted)
    else:
        frame, result["far"] = await returned.until(FIELDS)
        # Python's own form, with its blanks.
        update = json.dumps({"type": "update_prompts", "prompts": [INVERT]})
        result["updated"] = await say(update, "prompts_updated")
        frame, result["far_inverted"] = await returned.until(inverted(FIELDS))
        nodes = await say('{"type": "get_nodes"}', "nodes_info")
        result["nodes"] = {key: value["class_type"] for key, value in nodes["nodes"]["0"].items()}
    result["size"] = [frame.width, frame.height]
    result["fps"] = await returned.rate()
    codecs = [line.split(" ")[1].split("/")[0] for line in answer["sdp"].splitlines() if line.startswith("a=rtpmap:")]
    result["codecs"] = codecs
    result["pong"] = (await say('{"type":"comfy:ping","sent":7}', "comfy:pong"))["sent"]
    await pc.close()
    result["gone_s"] = await api.gone(answer["id"])
    return result


run(play, shape="comfystream", model="invert")
