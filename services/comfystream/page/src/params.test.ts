import assert from "node:assert/strict";
import test from "node:test";

import { DEFAULTS, format, measures, parse, type Choice } from "./params.ts";

test("nothing asked is nothing written", () => {
  assert.deepEqual(parse("").choice, DEFAULTS);
  assert.equal(format(DEFAULTS), "");
});

test("every choice comes back from the address it was written to", () => {
  const choices: Choice[] = [
    { ...DEFAULTS, source: "test", pattern: "orbit", model: "invert", measure: false },
    { ...DEFAULTS, source: "screen", model: null, width: 1280, height: 720, fps: 60, codec: "AV1", mic: true },
    { ...DEFAULTS, camera: "Logi & Co", batch_size: 4, threshold: 0, max_batches: 8, leaky: "thin" },
  ];
  for (const choice of choices) assert.deepEqual(parse(format(choice)).choice, choice);
});

test("flags, names of old and nonsense", () => {
  assert.deepEqual(parse("?view=clean&autostart=1").flags, { clean: true, autostart: true });
  assert.equal(parse("?view=clean").choice.measure, false);
  assert.equal(parse("?view=clean&measure=1").choice.measure, true);
  assert.equal(measures(parse("?source=test").choice), true);
  assert.equal(measures(parse("?source=camera").choice), false);
  assert.equal(measures(parse("?source=camera&measure=1").choice), true);
  assert.equal(measures(parse("?source=test&view=clean").choice), false);
  assert.equal(parse("?frameRate=24").choice.fps, 24);
  assert.equal(parse("?batch=3").choice.batch_size, 3);
  assert.deepEqual(parse("?source=moon&pattern=x&leaky=y&fps=z&size=huge&width=&batch_size=").choice, DEFAULTS);
  assert.equal(parse("?width=999999").choice.width, 4096);
});
