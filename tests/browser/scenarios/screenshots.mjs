// Pictures of every page at three widths, light and dark: folder=out/screenshots. Says where a page is wider than the
// window, which would make it scroll sideways.

import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { running, until } from "../lib/live.mjs";
import { measure } from "../lib/latency.mjs";
import { blank, publish } from "../lib/raw.mjs";

const WIDTHS = [390, 820, 1440];
const HEIGHT = 900;

export default async function screenshots({ browsers, service, options }) {
  const folder = resolve(options.folder ?? "out/screenshots");
  const model = options.model ?? "invert";
  mkdirSync(folder, { recursive: true });
  await service.ready();
  const browser = await browsers.open();
  const sending = await blank(browser, service);
  await publish(sending, "/whip/cam");
  const sideways = [];
  const files = [];
  const shoot = async (page, name) => {
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      for (const width of WIDTHS) {
        await page.setViewportSize({ width, height: HEIGHT });
        const file = `${name}-${width}-${colorScheme}.png`;
        // The window is made as high as the page: in a longer picture, what sticks to its edge would stick in the middle.
        const height = await page.evaluate(() => document.documentElement.scrollHeight);
        await page.setViewportSize({ width, height: Math.max(HEIGHT, height) });
        await page.screenshot({ path: join(folder, file), animations: "disabled" });
        files.push(file);
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        if (wide > 0) sideways.push({ file, wide });
      }
    }
    await page.context().close();
  };
  await shoot(await browser.page(service.page("/")), "idle");
  const live = await browser.page(service.page("/", { source: "test", size: "640x480", model, autostart: 1 }));
  await running(live);
  // So long that the plots have something to show.
  await measure(live, 3);
  await shoot(live, "live");
  const failed = await browser.page(service.page("/", { source: "test", model: "no-such-model", autostart: 1 }));
  await until(failed, "the page has failed", () => window.comfy.state === "failed");
  await shoot(failed, "failed");
  const player = await browser.page(service.page("/whep-player", { name: "cam" }));
  await until(player, "the player plays", () => window.comfy.state === "playing" && window.comfy.pictures > 5);
  await shoot(player, "player");
  const sources = await browser.page(service.page("/whep-player"));
  await sources.locator("#sources li").first().waitFor();
  await shoot(sources, "sources");
  await shoot(await browser.page(service.page("/stats")), "stats");
  await sending.context().close();
  return { folder, files, sideways };
}
