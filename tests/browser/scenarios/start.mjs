// How long somebody waits who presses start, for reports: times=10 codec=VP8 model=NAME|passthrough. From the request to
// its answer, and to the first picture that comes back.

import { comfy, until } from "../lib/live.mjs";
import { spread } from "../lib/percentiles.mjs";

/** Presses start, and gives both times in milliseconds. */
function press() {
  const video = document.getElementById("video-out");
  const offers = () => performance.getEntriesByType("resource").filter((entry) => entry.name.endsWith("/offer"));
  const before = offers().length;
  return new Promise((resolve) => {
    video.requestVideoFrameCallback(() => {
      const shown = performance.now();
      const offer = offers()[before];
      resolve({ answer: offer.responseEnd - offer.startTime, picture: shown - begin });
    });
    const begin = performance.now();
    document.getElementById("start").click();
  });
}

export default async function start({ browsers, service, options }) {
  const { times = "10", codec = "VP8", model = "passthrough" } = options;
  await service.ready();
  const browser = await browsers.open({ camera: false });
  const page = await browser.page(service.page("/", { source: "test", size: "640x480", fps: "30", codec, model }));
  const answers = [];
  const pictures = [];
  for (let round = 0; round < Number(times); round += 1) {
    await until(page, "the page is idle", () => window.comfy.connection === "none");
    const { answer, picture } = await page.evaluate(press);
    answers.push(answer);
    pictures.push(picture);
    const state = await comfy(page, "state");
    if (state === "failed") throw new Error("the session failed");
    await page.click("#start");
    await service.empty();
  }
  return { wanted: { codec, model, times: Number(times) }, answer_ms: spread(answers), picture_ms: spread(pictures) };
}
