"""Publishes by WHIP (RFC 9725) with candidates that trickle, and is refused where it should be: whip.py BASE [--name cam]"""

import asyncio

from aiortc import RTCSessionDescription

from common import Painted, connected, peer, run, until

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = "application/trickle-ice-sdpfrag"


def split(sdp):
    """The offer without its candidates, and the fragment that brings them."""
    lines = sdp.splitlines()
    candidates = [line for line in lines if line.startswith(("a=candidate:", "a=end-of-candidates"))]
    offer = "\r\n".join(line for line in lines if line not in candidates) + "\r\n"
    keep = ("a=ice-ufrag:", "a=ice-pwd:")
    credentials = [line for line in lines if line.startswith(keep)][:2]
    mid = next(line for line in lines if line.startswith("a=mid:"))
    media = next(line for line in lines if line.startswith("m="))
    return offer, "\r\n".join([*credentials, media, mid, *candidates]) + "\r\n"


async def play(api, arguments):
    path = f"/whip/{arguments.name}"
    status, headers, _ = await api.ask("OPTIONS", path, status=204)
    accept_post = headers.get("Accept-Post")
    await api.refused("POST", path, 415, "content_type", data="v=0", headers={"Content-Type": "text/plain"})
    await api.refused("POST", path, 400, "offer_malformed", data="garbage", headers=SDP)

    pc = peer()
    pc.addTransceiver(Painted(), direction="sendonly")
    await pc.setLocalDescription(await pc.createOffer())
    offer, fragment = split(pc.localDescription.sdp)
    _, headers, answer = await api.ask("POST", path, status=201, data=offer, headers=SDP)
    location, tag = headers["Location"], headers["ETag"]
    content_type = headers["Content-Type"]
    session = location.rsplit("/", 1)[1]
    await pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    patch = {"Content-Type": FRAGMENT}
    refused = {}

    async def refuse(name, status, **rest):
        got, _, body = await api.ask("PATCH", location, status=status, **rest)
        assert body["error"]["code"] and body["error"]["message"], body
        refused[name] = [got, body["error"]["code"]]

    await refuse("no_tag", 428, data=fragment, headers=patch)
    await refuse("other_tag", 412, data=fragment, headers={**patch, "If-Match": '"other"'})
    await refuse("other_type", 415, data=fragment, headers={**SDP, "If-Match": tag})
    trickled, _, _ = await api.ask("PATCH", location, status=204, data=fragment, headers={**patch, "If-Match": tag})
    await connected(pc)

    async def flows():
        _, _, body = await api.ask("GET", f"/api/sessions/{session}", status=200)
        return body["stats"]["frames_in"] > 10

    await until("frames arrive", flows)
    _, _, listed = await api.ask("GET", "/api/sources", status=200)
    source = next(source for source in listed["sources"] if source["name"] == arguments.name)

    # The name is taken: RFC 9725 leaves it to the service, docs/API.md says which status.
    second = peer()
    second.addTransceiver(Painted(), direction="sendonly")
    await second.setLocalDescription(await second.createOffer())
    taken, _, body = await api.ask("POST", path, data=second.localDescription.sdp, headers=SDP)
    taken = [taken, body["error"]["code"] if isinstance(body, dict) else "published"]
    await second.close()

    deleted, _, _ = await api.ask("DELETE", location, status=200)
    again, _, _ = await api.ask("DELETE", location)
    gone_s = await api.gone(session)
    _, _, listed = await api.ask("GET", "/api/sources", status=200)
    left = [source["name"] for source in listed["sources"]]
    await pc.close()
    return {
        "options": status,
        "accept_post": accept_post,
        "content_type": content_type,
        "location": location,
        "tag": tag,
        "trickled": trickled,
        "refused": refused,
        "source": source,
        "taken": taken,
        "deleted": deleted,
        "deleted_again": again,
        "gone_s": gone_s,
        "left": left,
    }


run(play, name="cam")
