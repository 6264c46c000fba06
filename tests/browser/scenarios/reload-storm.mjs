// Somebody who reloads the page again and again leaves nothing behind.

import { comfy, running } from "../lib/live.mjs";

const RELOADS = 10;

export default async function reloadStorm({ browsers, service }) {
  await service.ready();
  const browser = await browsers.open();
  const query = { source: "camera", size: "640x480", model: "invert", autostart: 1 };
  const page = await browser.page(service.page("/", query));
  const most = [];
  for (let turn = 0; turn < RELOADS; turn += 1) {
    // At different moments of a start: before the offer, while it is answered, with pictures.
    if (turn % 3 === 1) await page.waitForFunction(() => window.comfy?.session !== undefined);
    if (turn % 3 === 2) await running(page);
    await page.reload({ waitUntil: "commit" });
    most.push((await service.sessions()).length);
  }
  await running(page);
  const settled_s = await service.until("one session is left", 20, async () => (await service.sessions()).length <= 1);
  const [session] = await service.sessions();
  const own = await comfy(page, "session");
  await page.context().close();
  const gone_s = await service.empty();
  return { reloads: RELOADS, sessions: most, settled_s, own: session?.id === own, gone_s };
}
