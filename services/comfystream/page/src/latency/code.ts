// A time painted into a picture, and read back after an encoder, a model and another encoder have been at it.
//
// 40 columns: 8 of a fixed pattern, 24 of time (ms, modulo 2^24, about four and a half hours), 8 of CRC. A column is two
// cells, one above the other, one white and one black: its bit is the sign of their difference, so that brightness,
// contrast and colour may change without harm. A model that inverts the picture flips all signs, one that mirrors it
// reverses the columns; the pattern is neither its own complement nor its own mirror image, so both are told apart.

export const COLUMNS = 40;
export const ROWS = 2;
export const WRAP = 2 ** 24;

const PATTERN = 0b11100100;
const TIME_BITS = 24;
/** Cells that differ less than this (of 255) are not a code that survived. */
const CONTRAST = 24;
/** Nothing in this system holds a frame longer; what claims to be older was read wrongly. */
const OLDEST_MS = 30_000;

/** CRC-8 (polynomial 0x07) of the 24 bits of time. */
function crc(time: number): number {
  let sum = 0xff;
  for (let shift = 16; shift >= 0; shift -= 8) {
    sum ^= (time >> shift) & 0xff;
    for (let bit = 0; bit < 8; bit += 1) sum = sum & 0x80 ? ((sum << 1) ^ 0x07) & 0xff : (sum << 1) & 0xff;
  }
  return sum;
}

function bits(value: number, count: number): boolean[] {
  return Array.from({ length: count }, (_, at) => ((value >> (count - 1 - at)) & 1) === 1);
}

/** The columns from left to right; true is white above black. */
export function encode(ms: number): boolean[] {
  const time = ((Math.round(ms) % WRAP) + WRAP) % WRAP;
  return [...bits(PATTERN, 8), ...bits(time, TIME_BITS), ...bits(crc(time), 8)];
}

function number(columns: boolean[], from: number, count: number): number {
  let value = 0;
  for (let at = from; at < from + count; at += 1) value = value * 2 + (columns[at] ? 1 : 0);
  return value;
}

export interface Reading {
  /** ms, modulo `WRAP`. */
  time: number;
  inverted: boolean;
  mirrored: boolean;
}

/** Reads differences `above - below` of the columns, each -255 to 255; nothing where they are no code. */
export function decode(differences: ArrayLike<number>): Reading | undefined {
  if (differences.length !== COLUMNS) return undefined;
  const seen = Array.from(differences);
  // One cell washed out by a model's texture fails the CRC anyway; a whole faint strip must not be read at all.
  const strengths = seen.map(Math.abs).sort((a, b) => a - b);
  if ((strengths[COLUMNS / 4] ?? 0) < CONTRAST) return undefined;
  for (const mirrored of [false, true]) {
    for (const inverted of [false, true]) {
      const columns = seen.map((difference) => difference > 0 !== inverted);
      if (mirrored) columns.reverse();
      if (number(columns, 0, 8) !== PATTERN) continue;
      const time = number(columns, 8, TIME_BITS);
      if (number(columns, 8 + TIME_BITS, 8) === crc(time)) return { time, inverted, mirrored };
    }
  }
  return undefined;
}

/** How old a reading is at `now`, over the wrap; nothing where it cannot be. */
export function age(time: number, now: number): number | undefined {
  const ms = (((now - time) % WRAP) + WRAP) % WRAP;
  return ms <= OLDEST_MS ? ms : undefined;
}

/**
 * Differences of the columns in RGBA pixels of the strip, `cell` pixels to a cell. Only the middle of each cell counts:
 * codecs bleed at its edges.
 */
export function differences(rgba: ArrayLike<number>, cell: number): number[] {
  const inset = Math.floor(cell / 4);
  const width = COLUMNS * cell;
  const level = (column: number, row: number): number => {
    let sum = 0;
    let count = 0;
    for (let y = row * cell + inset; y < (row + 1) * cell - inset; y += 1) {
      for (let x = column * cell + inset; x < (column + 1) * cell - inset; x += 1) {
        const at = (y * width + x) * 4;
        sum += (rgba[at] ?? 0) * 0.299 + (rgba[at + 1] ?? 0) * 0.587 + (rgba[at + 2] ?? 0) * 0.114;
        count += 1;
      }
    }
    return count === 0 ? 0 : sum / count;
  };
  return Array.from({ length: COLUMNS }, (_, column) => level(column, 0) - level(column, 1));
}
