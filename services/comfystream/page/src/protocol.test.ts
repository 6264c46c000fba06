import assert from "node:assert/strict";
import test from "node:test";

import { asControlMessage, asErrorBody, asText, asWorkflows, refresh } from "./protocol.ts";

test("control messages are known by their type, others are passed over", () => {
  assert.equal(asControlMessage('{"type":"comfy:state","state":"running"}')?.type, "comfy:state");
  assert.equal(asControlMessage('{"type":"from the future"}'), undefined);
  for (const bad of ["", "{", "null", "[]", "7", '{"type":7}', new ArrayBuffer(4), undefined])
    assert.equal(asControlMessage(bad), undefined);
});

test("an error has a code and words, whatever came", () => {
  assert.deepEqual(asErrorBody({ error: { code: "a", message: "b", hint: "c" } }), {
    code: "a",
    message: "b",
    hint: "c",
  });
  assert.deepEqual(asErrorBody({ error: "words" }), { code: "error", message: "words" });
  for (const bad of [undefined, null, 7, "x", [], {}, { error: null }, { error: { code: 5 } }]) {
    assert.deepEqual(asErrorBody(bad, "otherwise"), { code: "unknown", message: "otherwise" });
  }
  assert.deepEqual(asControlMessage('{"type":"error","error":{"code":"x","message":"y"},"fatal":true}'), {
    type: "error",
    error: { code: "x", message: "y" },
    fatal: true,
  });
});

test("texts come without the warm-up's", () => {
  assert.equal(asText('{"type":"text","data":"a cat"}'), "a cat");
  assert.equal(asText('{"type":"text","data":"__WARMUP_SENTINEL__ 1"}'), undefined);
  assert.equal(asText('{"type":"text"}'), undefined);
  assert.equal(asText("plain"), undefined);
});

test("a workflow is an object with nodes, or a list of such", () => {
  const one = { 1: { class_type: "LoadImage", inputs: {} } };
  assert.deepEqual(asWorkflows(one), [one]);
  assert.deepEqual(asWorkflows([one, one]), [one, one]);
  for (const bad of [undefined, null, "x", 7, {}, [], [{}], [one, 7]]) assert.equal(asWorkflows(bad), undefined);
});

test("an overrun passes with the next figures", () => {
  const message = { type: "comfy:buffer", state: "overrun", fill: 20, capacity: 20, threshold: 8 } as const;
  assert.deepEqual(refresh(message, { state: "running", fill: 12 }), { ...message, state: "running", fill: 12 });
  assert.equal(refresh(message, null), message);
});
