import assert from "node:assert/strict";
import test from "node:test";

import { changesOf } from "./changes.ts";
import { DEFAULTS } from "./params.ts";

test("a changed setting is one request and touches nothing else", () => {
  assert.deepEqual(changesOf(["batch_size"], { ...DEFAULTS, batch_size: 4 }), {
    source: "no",
    reconnect: false,
    requests: [{ type: "comfy:settings", batch_size: 4 }],
    unset: false,
  });
  assert.deepEqual(changesOf(["max_batches", "threshold"], { ...DEFAULTS, max_batches: 3, threshold: 3 }).requests, [
    { type: "comfy:settings", threshold: 3, max_batches: 3 },
  ]);
  assert.deepEqual(changesOf(["model"], { ...DEFAULTS, model: null }).requests, [
    { type: "comfy:settings", model: null },
  ]);
});

test("a size changes the picture in place, a device opens anew, a codec reconnects", () => {
  const size = changesOf(["width", "height"], { ...DEFAULTS, width: 640, height: 360 });
  assert.deepEqual(size.requests, [{ type: "update_resolution", width: 640, height: 360 }]);
  assert.equal(size.source, "shape");
  assert.equal(changesOf(["source"], DEFAULTS).source, "anew");
  assert.deepEqual(changesOf(["mic"], DEFAULTS), { source: "anew", reconnect: true, requests: [], unset: false });
  assert.deepEqual(changesOf(["codec"], DEFAULTS), { source: "no", reconnect: true, requests: [], unset: false });
});

test("what is left to the service again is no request", () => {
  assert.deepEqual(changesOf(["leaky"], DEFAULTS), { source: "no", reconnect: false, requests: [], unset: true });
});
