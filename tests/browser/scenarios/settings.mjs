// Model and size are changed while pictures flow, and the session goes on.

import { colours, comfy, distance, nextPicture, running, shows, until, SENT } from "../lib/live.mjs";
import { inverted } from "../lib/camera.mjs";

export default async function settings({ browsers, service }) {
  await service.ready();
  const browser = await browsers.open();
  const query = { source: "camera", size: "640x480", model: "invert", autostart: 1 };
  const page = await browser.page(service.page("/", query));
  await running(page);
  await shows(page, inverted(SENT));
  const session = await comfy(page, "session");
  const steps = [];
  const timed = async (what, step) => {
    const begin = performance.now();
    await step();
    steps.push({ what, ms: Math.round(performance.now() - begin) });
  };
  await timed("passthrough", async () => {
    await page.selectOption("#model", "");
    await running(page, "passthrough");
    await shows(page, SENT);
  });
  await timed("invert", async () => {
    await page.selectOption("#model", "invert");
    await running(page);
    await shows(page, inverted(SENT));
  });
  await timed("512x512", async () => {
    await page.selectOption("#size", "512x512");
    const square = () => {
      const video = document.getElementById("video-out");
      return video.videoWidth === 512 && video.videoHeight === 512;
    };
    await until(page, "pictures of the new size come back", square);
    await shows(page, inverted(SENT));
  });
  await timed("paused", async () => {
    await page.click("#pause");
    await until(page, "the session is paused", () => window.comfy.state === "paused");
  });
  await timed("resumed", async () => {
    await page.click("#pause");
    await running(page);
    await nextPicture(page);
  });
  const returned = await colours(page);
  return {
    steps,
    far: distance(returned, inverted(SENT)),
    same_session: session === (await comfy(page, "session")),
    sessions: (await service.sessions()).length,
    errors: await comfy(page, "errors"),
  };
}
