// A canvas as a source: what is drawn on it is what is sent, so it can carry the painted time, and it always has
// the size that was asked for.

import { paint } from "../latency/strip.ts";

export interface Shape {
  width: number;
  height: number;
  fps: number;
  /** Paint the time into each frame. */
  stamp: boolean;
}

/** Draws one picture; returns the time it was made where that is known, or false where there is nothing new. */
export type Draw = (context: CanvasRenderingContext2D, now: number, frame: number) => number | boolean;

export class CanvasSource {
  readonly stream: MediaStream;
  readonly #canvas = document.createElement("canvas");
  readonly #context: CanvasRenderingContext2D;
  readonly #draw: Draw;
  readonly #ticker: Worker;
  #shape: Shape;
  #frame = 0;
  #last = 0;
  #due = 0;

  /** `driven` sources call `frame` themselves whenever there is a picture; they are ticked only in the background. */
  constructor(shape: Shape, draw: Draw, driven: boolean) {
    const context = this.#canvas.getContext("2d", { alpha: false });
    if (!context) throw new Error("This browser gives no canvas to draw on");
    this.#context = context;
    this.#draw = draw;
    this.#shape = shape;
    this.#canvas.width = shape.width;
    this.#canvas.height = shape.height;
    this.#ticker = new Worker(new URL("./ticker.worker.ts", import.meta.url), { type: "module" });
    this.#ticker.onmessage = (): void => {
      // Browsers take what is on a canvas when they compose the page: what was drawn just before waits the least.
      if (document.hidden) this.#paint();
      else if (!driven && !this.#due) this.#due = requestAnimationFrame(() => this.#paint());
    };
    this.#paint();
    // No rate here: a limit just at the rate of the ticks would drop every frame that comes a little early.
    this.stream = this.#canvas.captureStream();
    this.#ticker.postMessage(shape.fps);
  }

  set shape(shape: Shape) {
    if (shape.width !== this.#shape.width || shape.height !== this.#shape.height) {
      this.#canvas.width = shape.width;
      this.#canvas.height = shape.height;
    }
    if (shape.fps !== this.#shape.fps) this.#ticker.postMessage(shape.fps);
    this.#shape = shape;
    this.#paint();
  }

  /** There is a picture. */
  frame(): void {
    // A camera may be faster than what is wanted; a quarter of the interval is left for its unevenness.
    if (performance.now() - this.#last >= 750 / this.#shape.fps) this.#paint();
  }

  #paint(): void {
    this.#due = 0;
    const now = performance.now();
    const drawn = this.#draw(this.#context, now, this.#frame);
    if (drawn === false) return;
    if (this.#shape.stamp) paint(this.#context, typeof drawn === "number" ? drawn : performance.now());
    this.#last = now;
    this.#frame += 1;
  }

  stop(): void {
    this.#ticker.terminate();
    for (const track of this.stream.getTracks()) track.stop();
  }
}

/** Fills the canvas with the picture and cuts off what is too much, so that nothing is distorted. */
export function cover(context: CanvasRenderingContext2D, video: HTMLVideoElement): void {
  const { width, height } = context.canvas;
  const scale = Math.max(width / video.videoWidth, height / video.videoHeight);
  const w = width / scale;
  const h = height / scale;
  context.drawImage(video, (video.videoWidth - w) / 2, (video.videoHeight - h) / 2, w, h, 0, 0, width, height);
}

/** Sends what a video element shows: a file, or a camera that is to carry the time. */
export function fromVideo(video: HTMLVideoElement, shape: Shape): { source: CanvasSource; stop: () => void } {
  let captured: number | undefined;
  const source = new CanvasSource(
    shape,
    (context) => {
      if (!video.videoWidth) return false;
      cover(context, video);
      return captured ?? true;
    },
    true,
  );
  let handle = 0;
  const next = (now: number, metadata: { captureTime?: number }): void => {
    handle = video.requestVideoFrameCallback(next);
    // Only believed where it is near: some drivers count from another clock.
    const at = metadata.captureTime;
    captured = at !== undefined && at <= now && at > now - 1000 ? at : undefined;
    source.frame();
  };
  if (typeof video.requestVideoFrameCallback === "function") handle = video.requestVideoFrameCallback(next);
  return {
    source,
    stop: () => {
      if (handle) video.cancelVideoFrameCallback(handle);
      source.stop();
    },
  };
}
