// The camera is refused: the page says so in plain words, and offers a way on.

import { comfy, running, until } from "../lib/live.mjs";

export default async function permission({ browsers, service }) {
  await service.ready();
  const browser = await browsers.open({ camera: false, flags: ["--use-fake-ui-for-media-stream=deny"] });
  const page = await browser.page(service.page("/", { source: "camera", model: "invert" }));
  await page.click("#start");
  await until(page, "the page has failed", () => window.comfy.state === "failed");
  const [text, detail] = await page.evaluate(() =>
    ["out-text", "out-detail"].map((id) => document.getElementById(id).innerText),
  );
  const [error] = await comfy(page, "errors");
  const ways = await page.locator("#out-actions button").allInnerTexts();
  const sessions = (await service.sessions()).length;
  // The way on is one press.
  await page.locator("#out-actions button").first().click();
  await running(page);
  const went_on = await comfy(page, "state");
  await page.click("#start");
  await service.empty();
  return { text, detail, code: error?.code, ways, sessions, went_on };
}
