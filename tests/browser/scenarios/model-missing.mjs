// A link names a model that the service does not have.

import { comfy, until } from "../lib/live.mjs";

export default async function modelMissing({ browsers, service }) {
  await service.ready();
  const browser = await browsers.open();
  const page = await browser.page(service.page("/", { source: "camera", model: "no-such-model", autostart: 1 }));
  await until(page, "the page has failed", () => window.comfy.state === "failed");
  const [text, detail] = await page.evaluate(() =>
    ["out-text", "out-detail"].map((id) => document.getElementById(id).innerText),
  );
  const [error] = await comfy(page, "errors");
  const ways = await page.locator("#out-actions button").allInnerTexts();
  return { text, detail, code: error?.code, hint: error?.hint, ways, sessions: (await service.sessions()).length };
}
