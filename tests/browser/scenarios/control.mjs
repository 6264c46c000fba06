// ComfyStream's control messages, byte for byte as its page sends them, and without our page in between.

import { nextPicture, shows, until, SENT } from "../lib/live.mjs";
import { inverted } from "../lib/camera.mjs";
import { blank, offer, say } from "../lib/raw.mjs";

const load = '{"inputs":{},"class_type":"LoadTensor","_meta":{"title":"LoadTensor"}}';
const save = (from) => `{"inputs":{"images":["${from}",0]},"class_type":"SaveTensor","_meta":{"title":"SaveTensor"}}`;
const invert = '{"inputs":{"image":["1",0]},"class_type":"ImageInvert","_meta":{"title":"Invert Image"}}';
const PASS = `{"1":${load},"2":${save(1)}}`;
const INVERT = `{"1":${load},"2":${invert},"3":${save(2)}}`;

export default async function control({ browsers, service }) {
  await service.ready();
  const browser = await browsers.open();
  const page = await blank(browser, service);
  const answer = await offer(page, [JSON.parse(PASS)]);
  const answers = {};
  const ask = async (name, text, type) => (answers[name] = await say(page, text, type));

  await shows(page, SENT);
  await ask("get_nodes", '{"type":"get_nodes"}', "nodes_info");
  await ask("update_prompts", `{"type":"update_prompts","prompts":[${INVERT}]}`, "prompts_updated");
  await shows(page, inverted(SENT));
  await ask("update_resolution", '{"type":"update_resolution","width":256,"height":256}', "resolution_updated");
  await until(page, "pictures of the new size come back", () => document.getElementById("video-out").videoWidth === 256);
  const { width, height } = await nextPicture(page);
  await ask("pause_prompts", '{"type":"pause_prompts"}', "prompts_paused");
  await ask("resume_prompts", '{"type":"resume_prompts"}', "prompts_resumed");
  await shows(page, inverted(SENT));
  await ask("no_prompts", '{"type":"update_prompts"}', "prompts_updated");
  await ask("no_size", '{"type":"update_resolution"}', "resolution_updated");
  await ask("unknown", '{"type":"dance"}', "error");
  await ask("no_type", '{"prompts":[]}', "error");
  await ask("no_json", "not json", "error");
  await ask("still_there", '{"type":"get_nodes"}', "nodes_info");
  await ask("stop_prompts", '{"type":"stop_prompts"}', "prompts_stopped");
  await page.evaluate(() => window.raw.pc.close());
  const gone_s = await service.empty();
  return { answer: Object.keys(answer).sort(), id: answer.id, size: [width, height], answers, gone_s };
}
