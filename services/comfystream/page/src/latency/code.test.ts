import assert from "node:assert/strict";
import test from "node:test";

import { age, COLUMNS, decode, differences, encode, ROWS, WRAP } from "./code.ts";
import { percentile, Samples } from "./samples.ts";

const CELL = 8;
const TIMES = [0, 1, 2, 255, 256, 65_535, 65_536, 123_456, 8_388_607, 8_388_608, WRAP - 1];

/** A small generator, so that a failure can be seen again. */
function random(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** The strip as pixels, each changed by `change`. */
function pixels(
  ms: number,
  change: (level: number, x: number, y: number) => number = (level) => level,
): Uint8ClampedArray {
  const columns = encode(ms);
  const width = COLUMNS * CELL;
  const rgba = new Uint8ClampedArray(width * ROWS * CELL * 4);
  for (let y = 0; y < ROWS * CELL; y += 1) {
    for (let x = 0; x < width; x += 1) {
      const white = columns[Math.floor(x / CELL)] === y < CELL;
      rgba.fill(change(white ? 255 : 0, x, y), (y * width + x) * 4, (y * width + x) * 4 + 3);
      rgba[(y * width + x) * 4 + 3] = 255;
    }
  }
  return rgba;
}

const read = (rgba: Uint8ClampedArray): ReturnType<typeof decode> => decode(differences(rgba, CELL));

test("a time comes back as it was painted", () => {
  for (const time of TIMES) assert.deepEqual(read(pixels(time)), { time, inverted: false, mirrored: false });
});

test("fractions are rounded and times wrap", () => {
  assert.equal(read(pixels(1000.6))?.time, 1001);
  assert.equal(read(pixels(WRAP + 5))?.time, 5);
  assert.equal(read(pixels(WRAP - 0.4))?.time, 0);
});

test("an inverting model is seen through", () => {
  for (const time of TIMES) {
    assert.deepEqual(read(pixels(time, (level) => 255 - level)), { time, inverted: true, mirrored: false });
  }
});

test("a mirrored picture is read, inverted or not", () => {
  for (const time of TIMES) {
    const seen = differences(pixels(time), CELL).reverse();
    assert.deepEqual(decode(seen), { time, inverted: false, mirrored: true });
    assert.deepEqual(decode(seen.map((each) => -each)), { time, inverted: true, mirrored: true });
  }
});

test("low contrast, a gradient and a codec's noise are survived", () => {
  const dice = random(7);
  for (const time of TIMES) {
    const dull = pixels(time, (level, x) => 60 + level * 0.25 + x * 0.2 + (dice() - 0.5) * 60);
    assert.equal(read(dull)?.time, time);
  }
});

test("bleeding at the edges of cells is survived", () => {
  for (const time of TIMES) {
    const rgba = pixels(time, (level, x, y) => (x % CELL < 2 || y % CELL < 2 ? 128 : level));
    assert.equal(read(rgba)?.time, time);
  }
});

test("one wrong column is never taken for a time", () => {
  for (const time of TIMES) {
    const right = differences(pixels(time), CELL);
    for (let column = 0; column < COLUMNS; column += 1) {
      const wrong = right.map((each, at) => (at === column ? -each : each));
      assert.equal(decode(wrong), undefined, `${time}, column ${column}`);
    }
  }
});

test("a picture without a code is no time", () => {
  assert.equal(decode(new Array<number>(COLUMNS).fill(0)), undefined);
  assert.equal(decode(new Array<number>(COLUMNS).fill(255)), undefined);
  assert.equal(decode([]), undefined);
  assert.equal(read(pixels(123, (level) => 128 + level * 0.01)), undefined);
});

test("noise is taken for a plausible time less than once in a hundred thousand frames", () => {
  const dice = random(11);
  let taken = 0;
  for (let round = 0; round < 100_000; round += 1) {
    const noise = Array.from({ length: COLUMNS }, () => (dice() - 0.5) * 510);
    const reading = decode(noise);
    if (reading && age(reading.time, 5_000_000) !== undefined) taken += 1;
  }
  assert.ok(taken <= 1, `${taken} of 100000`);
});

test("age goes over the wrap and refuses the impossible", () => {
  assert.equal(age(100, 140), 40);
  assert.equal(age(WRAP - 10, WRAP + 20), 30);
  assert.equal(age(WRAP - 10, 20), 30);
  assert.equal(age(200, 100), undefined);
  assert.equal(age(0, 60_000), undefined);
});

test("percentiles are measured values and old ones leave", async () => {
  assert.equal(percentile([], 0.5), undefined);
  assert.equal(percentile([7], 0.95), 7);
  const samples = new Samples(60_000);
  for (let value = 101; value <= 200; value += 1) samples.push(value);
  assert.equal(samples.values.length, 100);
  assert.equal(samples.p50, 150);
  assert.equal(samples.p95, 195);
  const short = new Samples(1);
  short.push(5);
  await new Promise((resolve) => setTimeout(resolve, 20));
  short.push(6);
  assert.deepEqual(short.values, [6]);
});
