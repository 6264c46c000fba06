// The service ends and comes back at the same address; the page finds its way back by itself.
// Prints {"event":"kill"}, then {"event":"start"}, and waits for a line after each.

import { comfy, running, shows, until, SENT } from "../lib/live.mjs";
import { inverted } from "../lib/camera.mjs";

export default async function restart({ browsers, service, lines }) {
  await service.ready();
  const browser = await browsers.open();
  const query = { source: "camera", size: "640x480", model: "invert", autostart: 1 };
  const page = await browser.page(service.page("/", query));
  await running(page);
  const before = await comfy(page, "session");
  await lines.ask("kill");
  const killed = performance.now();
  await until(page, "the page notices", () => window.comfy.state === "reconnecting", undefined, 40_000);
  const noticed_s = (performance.now() - killed) / 1000;
  await lines.ask("start");
  const begin = performance.now();
  await until(page, "the page is back", (id) => window.comfy.session !== id && window.comfy.state === "running", before, 40_000);
  await shows(page, inverted(SENT));
  return {
    noticed_s,
    back_s: (performance.now() - begin) / 1000,
    sessions: (await service.sessions()).length,
    errors: await comfy(page, "errors"),
  };
}
