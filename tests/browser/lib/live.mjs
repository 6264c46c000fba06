// The live page, by its contract for tests: `window.comfy` and the ids of its controls.

import { FIELDS } from "./camera.mjs";

/** Longest wait for anything that a page does by itself. */
export const PATIENCE = 20_000;

/** A colour that went through a camera, two encoders and two conversions, and one that is another colour. */
const NEAR = 24;

/** Waits until the page says that it is so. Says what it waited for when it does not come. */
export async function until(page, what, condition, argument, timeout = PATIENCE) {
  try {
    await page.waitForFunction(condition, argument, { timeout, polling: 50 });
  } catch (error) {
    throw new Error(`${what}: ${error.message.split("\n")[0]}`, { cause: error });
  }
}

/** Waits for pictures that come back while the service is in a state. */
export function running(page, state = "running") {
  const condition = (wanted) => window.comfy.state === wanted && window.comfy.pictures > 5;
  return until(page, `the page is ${state} and shows pictures`, condition, state);
}

/** The colours in the middle of each field of what is sent (`video-in`) or what came back (`video-out`). */
export function colours(page, video = "video-out") {
  return page.evaluate((id) => {
    const from = document.getElementById(id);
    const canvas = document.createElement("canvas");
    canvas.width = 64;
    canvas.height = 64;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(from, 0, 0, 64, 64);
    const at = [
      [12, 12],
      [44, 12],
      [12, 44],
      [44, 44],
    ];
    return at.map(([x, y]) => {
      const { data } = context.getImageData(x, y, 8, 8);
      const sum = [0, 0, 0];
      data.forEach((value, index) => index % 4 < 3 && (sum[index % 4] += value));
      return sum.map((value) => Math.round(value / 64));
    });
  }, video);
}

/** The greatest difference of any channel of any field. */
export const distance = (some, others) =>
  Math.max(...some.flatMap((field, at) => field.map((value, channel) => Math.abs(value - others[at][channel]))));

/** Waits until what comes back has these colours, and gives how far it is from them. */
export async function shows(page, wanted, video = "video-out") {
  const end = performance.now() + PATIENCE;
  let seen;
  while (performance.now() < end) {
    seen = await colours(page, video);
    const far = distance(seen, wanted);
    if (far <= NEAR) return far;
    await nextPicture(page, video, 1);
  }
  throw new Error(`${video} shows ${JSON.stringify(seen)}, wanted ${JSON.stringify(wanted)}`);
}

/** Waits for so many pictures of a video, and gives their rate and size. */
export function nextPicture(page, video = "video-out", count = 1) {
  return page.evaluate(
    ([id, wanted, patience]) =>
      new Promise((resolve, reject) => {
        const element = document.getElementById(id);
        const timer = setTimeout(() => reject(new Error(`${id} shows no pictures`)), patience);
        let seen = 0;
        let begin;
        const next = (now) => {
          begin ??= now;
          if (seen++ < wanted) return void element.requestVideoFrameCallback(next);
          clearTimeout(timer);
          const { videoWidth: width, videoHeight: height } = element;
          resolve({ width, height, fps: (wanted * 1000) / (now - begin) });
        };
        element.requestVideoFrameCallback(next);
      }),
    [video, count, PATIENCE],
  );
}

export const comfy = (page, name) => page.evaluate((key) => window.comfy[key], name);

/** What a test camera sends, as a browser shows it. */
export const SENT = FIELDS;
