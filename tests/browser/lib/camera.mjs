// A camera with a picture that is known: four fields of one colour each.

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Left to right, top to bottom. Far enough from the ends of the range that an inverted one can be told from any other. */
export const FIELDS = [
  [200, 60, 60],
  [60, 200, 60],
  [60, 60, 200],
  [200, 200, 60],
];

export const inverted = (fields) => fields.map((field) => field.map((value) => 255 - value));

/** ITU-R BT.601, limited range, as the camera's format has it. */
function yuv([r, g, b]) {
  const y = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255;
  const u = 128 + (-37.797 * r - 74.203 * g + 112 * b) / 255;
  const v = 128 + (112 * r - 93.786 * g - 18.214 * b) / 255;
  return [y, u, v].map(Math.round);
}

function plane(width, height, at, colours) {
  const bytes = Buffer.alloc(width * height);
  for (let row = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1) {
      const field = (row < height / 2 ? 0 : 2) + (column < width / 2 ? 0 : 1);
      bytes[row * width + column] = colours[field][at];
    }
  }
  return bytes;
}

/** Path of a film of it that Chromium plays in a loop, and what removes that. */
export function film(width, height, fps, fields = FIELDS) {
  const folder = mkdtempSync(join(tmpdir(), "comfy-camera-"));
  const path = join(folder, "camera.y4m");
  const colours = fields.map(yuv);
  const picture = Buffer.concat([
    Buffer.from("FRAME\n"),
    plane(width, height, 0, colours),
    plane(width / 2, height / 2, 1, colours),
    plane(width / 2, height / 2, 2, colours),
  ]);
  const head = Buffer.from(`YUV4MPEG2 W${width} H${height} F${fps}:1 Ip A1:1 C420\n`);
  writeFileSync(path, Buffer.concat([head, picture, picture]));
  return { path, remove: () => rmSync(folder, { recursive: true, force: true }) };
}
