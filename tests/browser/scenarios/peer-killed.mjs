// A browser that crashes says nothing; the service notices by its silence, and others go on meanwhile.

import { comfy, nextPicture, running } from "../lib/live.mjs";

export default async function peerKilled({ browsers, service, options }) {
  const limit = Number(options.limit ?? 30);
  await service.ready();
  const size = { width: 320, height: 240, fps: 15 };
  const [victim, witness] = [await browsers.open({ camera: size }), await browsers.open({ camera: size })];
  const address = service.page("/", { source: "camera", size: "320x240", model: "invert", autostart: 1 });
  const [crashing, watching] = [await victim.page(address), await witness.page(address)];
  await Promise.all([running(crashing), running(watching)]);
  const id = await comfy(crashing, "session");
  const there = async () => (await service.sessions()).some((session) => session.id === id);
  if (!(await there())) throw new Error(`the service does not list session ${id}`);
  await victim.kill();
  const gone_s = await service.until("the session is gone", limit, async () => !(await there()));
  const { fps } = await nextPicture(watching, "video-out", 10);
  return { gone_s, witness_fps: fps };
}
