// All numbers of the page, drawn from the newest of what the service and the browser know.

import { Gauge } from "../plots/gauge.ts";
import { Sparkline, type Point } from "../plots/sparkline.ts";
import { StagePlot } from "../plots/stack.ts";
import { measured, type BufferMessage, type Stats } from "../protocol.ts";
import type { RtcFigures } from "../rtc.ts";
import { byId, FigureList, kbps, round, text, type Figure } from "./dom.ts";

/** Two a second for a minute. */
export const SLOTS = 120;

export interface Latency {
  p50: number | undefined;
  p95: number | undefined;
  /** Not measured in the picture, but added up from what is known. */
  estimated: boolean;
  note: string;
}

export class Figures {
  readonly #readouts = new FigureList(byId("readouts"));
  readonly #bufferFigures = new FigureList(byId("buffer-figures"));
  readonly #gauge = new Gauge(byId("gauge"));
  readonly #latency = new Sparkline(byId("latency-plot"), SLOTS, "ms", "No frame has made the round yet");
  readonly #stages = new StagePlot(byId("stages-plot"), byId<HTMLTableElement>("stages-legend"), SLOTS);
  #points: (Point | undefined)[] = [];

  constructor() {
    this.rates({}, undefined);
    this.buffer(undefined, undefined);
  }

  rates(rtc: RtcFigures, stats: Stats | undefined): void {
    const share = (value: number | undefined): Figure => ({
      label: "",
      value: value === undefined ? "–" : (value * 100).toFixed(1),
      unit: "%",
      bad: (value ?? 0) > 0.02,
    });
    const [sent, sentUnit] = kbps(rtc.kbps_sent);
    const [received, receivedUnit] = kbps(rtc.kbps_received);
    this.#readouts.show([
      { label: "Frames in", value: round(stats?.fps_in ?? rtc.fps_out, 1), unit: "fps" },
      { label: "Frames out", value: round(rtc.fps_in ?? stats?.fps_out, 1), unit: "fps" },
      { label: "Sent", value: sent, unit: sentUnit },
      { label: "Received", value: received, unit: receivedUnit },
      { ...share(rtc.loss_sent), label: "Loss up" },
      { ...share(rtc.loss_received), label: "Loss down" },
      {
        label: "Round trip",
        value: round(rtc.rtt_ms, rtc.rtt_ms !== undefined && rtc.rtt_ms < 10 ? 1 : 0),
        unit: "ms",
      },
      {
        label: "Dropped",
        value: stats?.dropped === undefined ? "–" : String(stats.dropped + (stats.failed ?? 0)),
        unit: "frames",
        bad: (stats?.failed ?? 0) > 0,
      },
    ]);
  }

  buffer(message: BufferMessage | undefined, stats: Stats | undefined): void {
    const buffer = stats?.buffer;
    const batch = stats?.batch;
    // Without a model there is no buffer, and what is told of it is empty.
    const state = message?.state || buffer?.state || "none";
    const capacity = message?.capacity ?? buffer?.capacity ?? 0;
    this.#gauge.show(
      state !== "none"
        ? {
            state,
            fill: buffer?.fill ?? message?.fill ?? 0,
            capacity,
            threshold: message?.threshold ?? buffer?.threshold ?? 0,
            batch: batch?.size ?? 0,
          }
        : undefined,
    );
    text(byId("buffer-state"), state === "none" ? "" : state);
    byId("buffer-figures").hidden = state === "none";
    byId("buffer-note").hidden = state !== "none";
    const count = (value: number | undefined): string => (value === undefined ? "–" : String(value));
    const dropped = buffer ? (buffer.dropped_overrun ?? 0) + (buffer.dropped_late ?? 0) : undefined;
    this.#bufferFigures.show([
      { label: "Fill", value: count(buffer?.fill ?? message?.fill), ...(capacity ? { unit: ` / ${capacity}` } : {}) },
      { label: "Peak", value: count(buffer?.peak_fill) },
      { label: "Underruns", value: count(buffer?.underruns), bad: (buffer?.underruns ?? 0) > 0 },
      { label: "Overruns", value: count(buffer?.overruns) },
      { label: "Dropped", value: count(dropped) },
      { label: "Batch size", value: count(batch?.size) },
      {
        label: "Batch fill",
        value: batch?.fill === undefined ? "–" : (batch.fill * 100).toFixed(0),
        unit: batch?.fill === undefined ? "" : " %",
      },
      { label: "Full batches", value: count(batch?.full) },
      { label: "Timed out", value: count(batch?.timeout) },
      {
        label: "Model run",
        value: round(stats?.infer?.run_ms, 1),
        unit: stats?.infer?.run_ms === undefined ? "" : " ms",
      },
    ]);
  }

  /** One slot of the plots; `point` where frames were measured in it. */
  tick(latency: Latency, point: Point | undefined, stats: Stats | undefined): void {
    const { p50, p95, estimated } = latency;
    const guess = estimated && p50 !== undefined ? { value: p50, high: p95 ?? p50 } : undefined;
    this.#points.push(point ?? guess);
    if (this.#points.length > SLOTS) this.#points.shift();
    this.#latency.show(this.#points);
    this.#stages.push(measured(stats));
    this.latency(latency);
  }

  latency({ p50, p95, estimated, note }: Latency): void {
    const about = estimated && p50 !== undefined ? "≈ " : "";
    text(byId("latency-p50"), about + round(p50));
    text(byId("latency-p95"), about + round(p95));
    byId("panel-latency").dataset["source"] = p50 === undefined ? "none" : estimated ? "estimated" : "measured";
    text(byId("latency-note"), note);
  }

  clear(): void {
    this.#points = [];
    this.#latency.show([]);
    this.#stages.clear();
    this.rates({}, undefined);
    this.buffer(undefined, undefined);
  }
}
