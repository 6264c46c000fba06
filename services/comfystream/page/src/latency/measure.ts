// Delay from the painted frame to the glass: measured in the picture where the code survives, else added up from what
// service and browser tell, and then said to be so.

import type { Point } from "../plots/sparkline.ts";
import { measured, type Stats } from "../protocol.ts";
import type { RtcFigures } from "../rtc.ts";
import type { Latency } from "../ui/figures.ts";
import { percentile, Samples } from "./samples.ts";
import { StripReader } from "./strip.ts";

/** As long as the service's own figures look back. */
const KEPT_MS = 10_000;
/** Pictures without a readable code before it is said that the model does not keep it. */
const LOST = 45;

export class Measure {
  readonly samples = new Samples(KEPT_MS);
  readonly #reader: StripReader;
  #slot: number[] = [];
  #on = false;
  #inverted = false;

  constructor(video: HTMLVideoElement) {
    this.#reader = new StripReader(video, ({ ms, reading }) => {
      this.#inverted = reading.inverted;
      this.samples.push(ms);
      this.#slot.push(ms);
    });
  }

  set on(on: boolean) {
    if (on === this.#on) return;
    this.#on = on;
    if (on) this.#reader.start();
    else this.#reader.stop();
    this.reset();
  }

  get lost(): boolean {
    return this.#reader.misses > LOST;
  }

  reset(): void {
    this.samples.clear();
    this.#slot = [];
    this.#inverted = false;
  }

  /** What was measured since the last slot of the plot. */
  takeSlot(): Point | undefined {
    const sorted = this.#slot.sort((a, b) => a - b);
    this.#slot = [];
    const value = percentile(sorted, 0.5);
    return value === undefined ? undefined : { value, high: percentile(sorted, 0.95) ?? value };
  }

  tell(running: boolean, stats: Stats | undefined, rtc: RtcFigures): Latency {
    const { p50, p95, values } = this.samples;
    if (running && this.#on && !this.lost && p50 !== undefined) {
      const how = this.#inverted ? "The model inverts the picture; the code reads all the same." : "";
      return {
        p50,
        p95,
        estimated: false,
        note: `Read from the pictures that come back: ${values.length} in the last 10 s. ${how}`.trim(),
      };
    }
    if (!running)
      return {
        p50: undefined,
        p95: undefined,
        estimated: false,
        note: "A time code is painted into each frame and read back from what returns.",
      };
    const total = measured(stats)?.total;
    const around = (rtc.rtt_ms ?? 0) + (rtc.jitter_buffer_ms ?? 0);
    const known = total?.p50 !== undefined;
    const why = !this.#on
      ? "Not measured: no time code is painted."
      : this.lost
        ? "The time code does not survive this model."
        : "Waiting for the first code.";
    return {
      p50: known ? (total.p50 ?? 0) + around : undefined,
      p95: known && total.p95 !== undefined ? total.p95 + around : undefined,
      estimated: known,
      note: known ? `${why} Estimated from the time in the service, the network and the jitter buffer.` : why,
    };
  }
}
