// A session on the stats page.

import { Gauge } from "../plots/gauge.ts";
import { Sparkline } from "../plots/sparkline.ts";
import { measured, STAGES, type SessionInfo, type Stats, type StreamFps } from "../protocol.ts";
import { FigureList, h, kbps, round, text } from "./dom.ts";

const SECONDS = 60;
const KINDS: Record<SessionInfo["kind"], string> = { offer: "Offer", whip: "WHIP", whep: "WHEP" };
/** A second press within this time ends the session; one alone is easily a slip. */
const SURE_MS = 3000;

function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const two = (value: number): string => String(value).padStart(2, "0");
  const hours = Math.floor(whole / 3600);
  return `${hours > 0 ? `${hours}:${two(Math.floor(whole / 60) % 60)}` : Math.floor(whole / 60)}:${two(whole % 60)}`;
}

export class Card {
  readonly element: HTMLElement;
  readonly #name = h("span", {});
  readonly #tally = h("p", { class: "tally" }, h("i", { "aria-hidden": "true" }));
  readonly #state = h("span", {});
  readonly #fps = h("b", {});
  readonly #spark: Sparkline;
  readonly #total = h("b", {});
  readonly #bars = STAGES.map((_, at) => h("i", { class: `s${at}` }));
  readonly #keys = STAGES.map(() => h("span", {}));
  readonly #gauge: Gauge;
  readonly #gaugePart: HTMLElement;
  readonly #figures: FigureList;

  constructor(id: string, end: (id: string) => void) {
    const button = h(
      "button",
      { type: "button", "data-testid": `end-${id}`, "aria-label": `End session ${id}` },
      "End",
    );
    let sure: ReturnType<typeof setTimeout> | undefined;
    button.addEventListener("click", () => {
      if (sure !== undefined) {
        clearTimeout(sure);
        button.disabled = true;
        return end(id);
      }
      text(button, "Really end?");
      button.classList.add("sure");
      sure = setTimeout(() => {
        sure = undefined;
        text(button, "End");
        button.classList.remove("sure");
      }, SURE_MS);
    });
    this.#tally.append(this.#state);
    const spark = h("div", { class: "plot spark" });
    const gauge = h("div", {
      class: "gauge",
      role: "meter",
      "aria-label": "Frames in the flight buffer",
      "aria-valuemin": "0",
    });
    const figures = h("dl", { class: "figures" });
    this.#gaugePart = h("div", {}, h("h3", {}, "Flight buffer"), gauge);
    this.element = h(
      "article",
      { class: "panel card", "data-session": id },
      h("header", {}, h("h2", {}, this.#name), this.#tally, button),
      h("div", {}, h("h3", {}, "Frames a second", this.#fps), spark),
      h(
        "div",
        {},
        h("h3", {}, "Time per frame", this.#total),
        h("div", { class: "stagebar", "aria-hidden": "true" }, ...this.#bars),
        h(
          "p",
          { class: "stagekey" },
          ...STAGES.map((stage, at) => h("span", {}, h("i", { class: `s${at}` }), `${stage} `, this.#keys[at])),
        ),
      ),
      this.#gaugePart,
      figures,
    );
    this.#spark = new Sparkline(spark, SECONDS, "fps", "No frames yet");
    this.#gauge = new Gauge(gauge);
    this.#figures = new FigureList(figures);
    text(this.#name, id);
  }

  show(info: SessionInfo, fps: Partial<StreamFps> | undefined, stats: Stats | undefined): void {
    // The first characters of an id tell sessions apart; all of them are in the title.
    text(this.#name, info.name || info.id.slice(0, 8));
    this.#name.title = info.id;
    const { state } = info;
    this.#tally.dataset["phase"] = state;
    const model = stats?.model ?? info.model;
    text(
      this.#state,
      [state, model ?? (state === "passthrough" ? "" : "no model"), stats?.width ? `${stats.width} × ${stats.height}` : "", stats?.codec_out ?? ""]
        .filter(Boolean)
        .join("  ·  "),
    );
    const rate = fps?.fps ?? stats?.fps_out;
    text(
      this.#fps,
      fps?.minute_avg_fps === undefined
        ? round(rate, 1)
        : `${round(rate, 1)} now, ${round(fps.minute_avg_fps, 1)} over the minute`,
    );
    this.#spark.show((fps?.minute_fps_array ?? []).map((each) => ({ value: each.fps, high: each.fps })));
    const stages = measured(stats);
    const means = STAGES.map((stage) => Math.max(0, stages?.[stage]?.mean ?? 0));
    const sum = means.reduce((all, each) => all + each, 0);
    means.forEach((mean, at) => {
      const bar = this.#bars[at];
      const key = this.#keys[at];
      if (bar) bar.style.width = sum > 0 ? `${(mean / sum) * 100}%` : "0";
      if (key) text(key, sum > 0 ? round(mean, 1) : "–");
    });
    const total = stages?.total;
    text(this.#total, total?.p50 === undefined ? "–" : `${round(total.p50)} ms median, ${round(total.p95)} ms p95`);
    const buffer = stats?.buffer?.state ? stats.buffer : undefined;
    this.#gaugePart.hidden = !buffer;
    this.#gauge.show(
      buffer
        ? {
            state: buffer.state ?? "none",
            fill: buffer.fill ?? 0,
            capacity: buffer.capacity ?? 0,
            threshold: buffer.threshold ?? 0,
            batch: stats?.batch?.size ?? 0,
          }
        : undefined,
    );
    const target = stats?.bitrate_target;
    const [rateOut, rateUnit] = kbps(target ? target / 1000 : undefined);
    const count = (value: number | undefined): string => (value === undefined ? "–" : String(value));
    this.#figures.show([
      { label: "Kind", value: KINDS[info.kind] ?? info.kind },
      { label: "Since", value: duration(Date.now() / 1000 - info.created) },
      { label: "In", value: round(stats?.fps_in, 1), unit: " fps" },
      { label: "Out", value: round(stats?.fps_out, 1), unit: " fps" },
      { label: "Bit rate", value: rateOut, unit: ` ${rateUnit}` },
      { label: "Frames", value: count(stats?.frames_out) },
      { label: "Dropped", value: count(stats?.dropped) },
      { label: "Failed", value: count(stats?.failed), bad: (stats?.failed ?? 0) > 0 },
    ]);
  }
}
