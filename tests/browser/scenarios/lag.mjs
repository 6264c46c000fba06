// Does delay grow? For reports: minutes=10 codec=VP8 model=NAME size=640x480 fps=30, and a deadline= that is longer. Glass
// to glass, by the minute, of one session.

import { measure } from "../lib/latency.mjs";
import { running } from "../lib/live.mjs";

export default async function lag({ browsers, service, options }) {
  const { minutes = "10", codec = "VP8", model, size = "640x480", fps = "30" } = options;
  await service.ready();
  const browser = await browsers.open({ camera: false });
  const query = { source: "test", size, fps, codec, model, measure: 1, autostart: 1 };
  const page = await browser.page(service.page("/", query));
  await running(page);
  const by_minute = [];
  for (let minute = 0; minute < Number(minutes); minute += 1) {
    const { samples, ...figures } = await measure(page, 60);
    by_minute.push(figures);
  }
  await page.click("#start");
  await service.empty();
  return { wanted: { codec, model, size, fps: Number(fps) }, by_minute };
}
