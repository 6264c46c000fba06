// Somebody publishes by WHIP, and somebody else watches in the player. name=cam
// again=1: whoever publishes goes and comes back, and who watches sees it again without pressing anything.

import { comfy, nextPicture, shows, until, SENT } from "../lib/live.mjs";
import { inverted } from "../lib/camera.mjs";
import { blank, publish, unpublish } from "../lib/raw.mjs";

export default async function whepPlayer({ browsers, service, options }) {
  const { name = "cam", model = "invert" } = options;
  await service.ready();
  const browser = await browsers.open({ camera: { width: 320, height: 240, fps: 30 } });
  // Who watches before anybody sends is told so, and need not press anything later.
  const watching = await browser.page(service.page("/whep-player", { name }));
  await until(watching, "the player waits", () => window.comfy.state === "waiting");
  const waiting = await watching.locator("#out-text").innerText();
  const sending = await blank(browser, service);
  const published = await publish(sending, `/whip/${name}`);
  if (published.status !== 201) throw new Error(`publishing is answered ${published.status}: ${published.sdp}`);
  await until(watching, "the player plays", () => window.comfy.state === "playing" && window.comfy.pictures > 5);
  const wanted = model === "passthrough" ? SENT : inverted(SENT);
  const far = await shows(watching, wanted);
  const { width, height, fps } = await nextPicture(watching, "video-out", 30);
  const sources = (await service.get("/api/sources")).sources;
  // A second viewer shares the stream and does not disturb the first.
  const second = await browser.page(service.page("/whep-player", { name, view: "clean" }));
  await until(second, "the second player plays", () => window.comfy.state === "playing" && window.comfy.pictures > 5);
  const viewers = (await service.get("/api/sources")).sources.find((source) => source.name === name)?.viewers;
  await second.context().close();
  const deleted = await unpublish(sending);
  let after;
  if (options.again) {
    const again = await publish(sending, `/whip/${name}`);
    if (again.status !== 201) throw new Error(`publishing again is answered ${again.status}: ${again.sdp}`);
    await nextPicture(watching, "video-out", 10);
    await shows(watching, wanted);
    after = await comfy(watching, "state");
    await unpublish(sending);
  }
  await watching.context().close();
  await service.empty();
  return {
    waiting,
    location: published.location,
    etag: published.etag,
    far,
    width,
    height,
    fps,
    source: sources.find((source) => source.name === name),
    viewers,
    deleted,
    after,
  };
}
