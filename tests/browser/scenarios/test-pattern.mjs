// The page's own picture carries the time, and the page reads its delay off what comes back.

import { comfy, running } from "../lib/live.mjs";
import { measure } from "../lib/latency.mjs";

export default async function testPattern({ browsers, service }) {
  await service.ready();
  const browser = await browsers.open({ camera: false });
  const query = { source: "test", size: "640x480", model: "invert", autostart: 1 };
  const page = await browser.page(service.page("/", query));
  await running(page);
  const { samples: _, ...figures } = await measure(page, 3);
  const { samples, p50, p95, readable } = await comfy(page, "latency");
  await page.click("#start");
  await service.empty();
  return { ...figures, page: { count: samples.length, p50, p95, readable }, errors: await comfy(page, "errors") };
}
