// A camera goes through the model that inverts, and comes back.

import { colours, comfy, distance, nextPicture, running, shows, SENT } from "../lib/live.mjs";
import { inverted } from "../lib/camera.mjs";

export default async function roundtrip({ browsers, service, options }) {
  await service.ready();
  const browser = await browsers.open();
  const query = { source: "camera", size: "640x480", model: "invert", autostart: 1 };
  if (options.codec) query.codec = options.codec;
  const begin = performance.now();
  const page = await browser.page(service.page("/", query));
  await running(page);
  const started_ms = Math.round(performance.now() - begin);
  const far = await shows(page, inverted(SENT));
  const sent = await colours(page, "video-in");
  const returned = await colours(page);
  const { width, height, fps } = await nextPicture(page, "video-out", 60);
  await page.waitForFunction(() => window.comfy.rtc.codec_received);
  const { codec_sent, codec_received } = await comfy(page, "rtc");
  const { model, width_in, height_in } = await comfy(page, "stats");
  await page.click("#start");
  const gone_s = await service.empty();
  return {
    far,
    far_from_sent: distance(returned, inverted(sent)),
    width,
    height,
    fps: Math.round(fps * 10) / 10,
    codec_sent,
    codec_received,
    model,
    size_in: [width_in, height_in],
    started_ms,
    gone_s,
    errors: await comfy(page, "errors"),
  };
}
