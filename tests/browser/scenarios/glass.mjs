// Glass to glass, for reports: seconds=10 codec=VP8|H264 model=NAME|passthrough size=640x480 fps=30 samples=1 (each one).
// From the moment that a picture is painted to the moment that the browser presents what came back of it.

import { browserStages } from "../lib/browser-stages.mjs";
import { comfy, running, until } from "../lib/live.mjs";
import { measure } from "../lib/latency.mjs";

export default async function glass({ browsers, service, options }) {
  const { seconds = "10", codec = "VP8", model = "passthrough", size = "640x480", fps = "30" } = options;
  await service.ready();
  const browser = await browsers.open({ camera: false });
  const page = await browser.page(
    service.page("/", { source: "test", size, fps, codec, model, measure: 1, autostart: 1 }),
  );
  await running(page, model === "passthrough" ? "passthrough" : "running");
  await until(page, "the codec is known", () => window.comfy.rtc.codec_received);
  const inBrowser = await browserStages(page);
  const { samples, fps: shown, ...figures } = await measure(page, Number(seconds));
  const stages = await inBrowser();
  const { codec_sent, codec_received, size_received } = await comfy(page, "rtc");
  const stats = await comfy(page, "stats");
  await page.click("#start");
  await service.empty();
  return {
    seconds: Number(seconds),
    wanted: { codec, model, size, fps: Number(fps) },
    codec_sent,
    codec_received,
    size_received,
    fps: shown,
    latency_ms: figures,
    service: stats?.stages,
    browser: stages,
    ...(options.samples ? { samples } : {}),
  };
}
