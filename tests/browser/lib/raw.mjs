// Peer connections without our page: what the clients of others do. Each function runs in a page of the service's origin.

import { until } from "./live.mjs";

/** A page of the service's origin that has no scripts of its own, with what the functions below need. */
export async function blank(browser, service) {
  const page = await browser.page(service.page("/health"));
  await page.evaluate(() => {
    const video = document.createElement("video");
    video.id = "video-out";
    video.muted = true;
    video.autoplay = true;
    document.body.append(video);
    window.raw = { heard: [], opened: false };
  });
  return page;
}

/**
 * As ComfyStream's page does it: a receiver and the camera's track, one channel, gathering to its end, and prompts and
 * offer in one object, to which nothing of ours is added. `configuration` is that of its peer connection.
 */
export async function offer(page, prompts, configuration = {}) {
  const answer = await page.evaluate(async ([workflows, settings]) => {
    const camera = await navigator.mediaDevices.getUserMedia({ video: true });
    const pc = new RTCPeerConnection(settings);
    pc.addTransceiver("video");
    camera.getTracks().forEach((track) => pc.addTrack(track, camera));
    const channel = pc.createDataChannel("control");
    channel.onopen = () => (window.raw.opened = true);
    channel.onmessage = (event) => window.raw.heard.push(event.data);
    pc.ontrack = (event) => {
      if (event.streams[0]) document.getElementById("video-out").srcObject = event.streams[0];
    };
    await pc.setLocalDescription(await pc.createOffer());
    await new Promise((resolve) => (pc.onicecandidate = (event) => event.candidate ?? resolve()));
    const { sdp, type } = pc.localDescription;
    const response = await fetch("/offer", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ prompts: workflows, offer: { sdp, type } }),
    });
    const body = await response.json();
    Object.assign(window.raw, { pc, channel });
    if (response.ok) await pc.setRemoteDescription({ sdp: body.sdp, type: body.type });
    return { status: response.status, body };
  }, [prompts, configuration]);
  if (answer.status !== 200) throw new Error(`the offer is answered ${JSON.stringify(answer)}`);
  await until(page, "the control channel opens", () => window.raw.opened);
  return answer.body;
}

/** Sends these bytes on the control channel, and gives the first answer that comes after it and is of that type. */
export async function say(page, text, type) {
  const from = await page.evaluate((bytes) => {
    const before = window.raw.heard.length;
    window.raw.channel.send(bytes);
    return before;
  }, text);
  const parsed = ([start, wanted]) => window.raw.heard.slice(start).find((each) => JSON.parse(each).type === wanted);
  await until(page, `${text.slice(0, 60)} is answered by ${type}`, parsed, [from, type]);
  return JSON.parse(await page.evaluate(parsed, [from, type]));
}

/** Publishes the camera by WHIP, as a browser page of somebody else would. */
export async function publish(page, path) {
  return page.evaluate(async (to) => {
    const camera = await navigator.mediaDevices.getUserMedia({ video: true });
    const pc = new RTCPeerConnection({ bundlePolicy: "max-bundle" });
    pc.addTransceiver(camera.getVideoTracks()[0], { direction: "sendonly", streams: [camera] });
    await pc.setLocalDescription(await pc.createOffer());
    await new Promise((resolve) => (pc.onicecandidate = (event) => event.candidate ?? resolve()));
    const response = await fetch(to, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: pc.localDescription.sdp,
    });
    const sdp = await response.text();
    if (response.ok) await pc.setRemoteDescription({ type: "answer", sdp });
    Object.assign(window.raw, { pc, location: response.headers.get("Location") });
    return { status: response.status, location: window.raw.location, etag: response.headers.get("ETag"), sdp };
  }, path);
}

/** Ends what was published. */
export function unpublish(page) {
  return page.evaluate(async () => {
    const { status } = await fetch(window.raw.location, { method: "DELETE" });
    window.raw.pc.close();
    return status;
  });
}
