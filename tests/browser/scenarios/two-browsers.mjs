// Two people at once, each with a model of their own.

import { comfy, nextPicture, running, shows, SENT } from "../lib/live.mjs";
import { inverted } from "../lib/camera.mjs";

/** What the other one's camera shows. */
const OTHERS = [SENT[2], SENT[3], SENT[0], SENT[1]];

export default async function twoBrowsers({ browsers, service }) {
  await service.ready();
  const size = { width: 320, height: 240, fps: 30 };
  const [one, other] = await Promise.all([
    browsers.open({ camera: size }),
    browsers.open({ camera: size, colours: OTHERS }),
  ]);
  const query = { source: "camera", size: "320x240", autostart: 1 };
  const [first, second] = await Promise.all([
    one.page(service.page("/", { ...query, model: "invert" })),
    other.page(service.page("/", { ...query, model: "passthrough" })),
  ]);
  await Promise.all([running(first), running(second, "passthrough")]);
  const far = await Promise.all([shows(first, inverted(SENT)), shows(second, OTHERS)]);
  const rates = await Promise.all([nextPicture(first, "video-out", 30), nextPicture(second, "video-out", 30)]);
  // What one of them changes is the other's business never.
  await first.selectOption("#model", "");
  await second.selectOption("#model", "invert");
  await Promise.all([running(first, "passthrough"), running(second)]);
  const changed = await Promise.all([shows(first, SENT), shows(second, inverted(OTHERS))]);
  const sessions = (await service.sessions()).length;
  const gone = await comfy(first, "session");
  const ids = new Set([gone, await comfy(second, "session")]);
  await one.close();
  const there = async () => (await service.sessions()).some((session) => session.id === gone);
  await service.until("the first one's session is gone", 20, async () => !(await there()));
  const left = await nextPicture(second, "video-out", 10);
  return { far: [...far, ...changed], fps: rates.map((rate) => rate.fps), sessions, ids: ids.size, left_fps: left.fps };
}
