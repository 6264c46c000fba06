// The code of code.ts on a canvas, and off a video again.

import { age, COLUMNS, decode, differences, encode, ROWS, type Reading } from "./code.ts";

/** The strip's share of the picture's height. A share, so that a picture that comes back at another size still reads. */
export const SHARE = 1 / 20;
const CELL = 8;

export function paint(context: CanvasRenderingContext2D, ms: number): void {
  const { width, height } = context.canvas;
  const top = height * (1 - SHARE);
  const row = (height * SHARE) / ROWS;
  // Black below everything: encoders round odd edges, and a sliver of the picture would bleed into the cells.
  context.fillStyle = "#000";
  context.fillRect(0, Math.floor(top), width, height - Math.floor(top));
  context.fillStyle = "#fff";
  encode(ms).forEach((bit, column) => {
    const left = Math.round((column * width) / COLUMNS);
    const right = Math.round(((column + 1) * width) / COLUMNS);
    const y = bit ? top : top + row;
    context.fillRect(left, Math.round(y), right - left, Math.round(y + row) - Math.round(y));
  });
}

/** `captureTime` is there for cameras whose driver tells it: then the time includes the camera's own delay. */
interface FrameMetadata {
  expectedDisplayTime: number;
  captureTime?: number;
}

export interface Measured {
  ms: number;
  reading: Reading;
}

/** Reads each presented frame of a video until it is stopped. */
export class StripReader {
  readonly #video: HTMLVideoElement;
  readonly #measured: (measured: Measured) => void;
  readonly #context: CanvasRenderingContext2D | null;
  #handle = 0;
  #last = -1;
  /** Presented frames since the last one that could be read. */
  misses = 0;

  constructor(video: HTMLVideoElement, measured: (measured: Measured) => void) {
    this.#video = video;
    this.#measured = measured;
    const canvas = document.createElement("canvas");
    canvas.width = COLUMNS * CELL;
    canvas.height = ROWS * CELL;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
  }

  start(): void {
    if (this.#handle || !this.#context || typeof this.#video.requestVideoFrameCallback !== "function") return;
    const next = (now: number, metadata: FrameMetadata): void => {
      this.#handle = this.#video.requestVideoFrameCallback(next);
      this.#read(now, metadata);
    };
    this.#handle = this.#video.requestVideoFrameCallback(next);
  }

  stop(): void {
    if (this.#handle) this.#video.cancelVideoFrameCallback(this.#handle);
    this.#handle = 0;
    this.#last = -1;
    this.misses = 0;
  }

  #read(now: number, metadata: FrameMetadata): void {
    const { videoWidth, videoHeight } = this.#video;
    if (!this.#context || !videoWidth || !videoHeight) return;
    const width = COLUMNS * CELL;
    const height = ROWS * CELL;
    this.#context.drawImage(
      this.#video,
      0,
      videoHeight * (1 - SHARE),
      videoWidth,
      videoHeight * SHARE,
      0,
      0,
      width,
      height,
    );
    const reading = decode(differences(this.#context.getImageData(0, 0, width, height).data, CELL));
    if (!reading) {
      this.misses += 1;
      return;
    }
    this.misses = 0;
    // A frame shown twice (a held picture, a still) is not a second measurement.
    if (reading.time === this.#last) return;
    this.#last = reading.time;
    // When it reaches the glass, where the browser can say; some say nonsense in the background.
    const shown = metadata.expectedDisplayTime;
    const at = shown >= now && shown < now + 100 ? shown : now;
    const ms = age(reading.time, at);
    if (ms !== undefined) this.#measured({ ms, reading });
  }
}
