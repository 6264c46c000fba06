// Stages of a frame's way over the last minute, stacked, with a table beside it that also tells what is under the
// pointer. Means are stacked, since percentiles of parts do not add up to the percentile of the whole.

import { STAGES, type Stage, type Stats } from "../protocol.ts";
import { h, round, svg, text } from "../ui/dom.ts";
import { ceiling, span } from "./sparkline.ts";

const W = 600;
const H = 100;
const NAMES: Record<Stage, string> = {
  decode: "Decode",
  buffer: "Buffer",
  model: "Model",
  convert: "Convert",
  encode: "Encode",
  send: "Send",
};

type Stages = NonNullable<Stats["stages"]>;

export class StagePlot {
  readonly #areas: SVGElement[];
  readonly #ticks = [h("span", { class: "tick" }), h("span", { class: "tick" })];
  readonly #grid = svg("path", { class: "grid" });
  readonly #empty = h("span", { class: "empty" }, "Starts with the first figures of a running session");
  readonly #hair = h("i", { class: "hair", hidden: "" });
  readonly #rows = new Map<Stage | "total", { mean: HTMLElement; p95: HTMLElement }>();
  readonly #slots: number;
  #history: (Stages | undefined)[] = [];
  /** Where the pointer is, as a share of the width. */
  #hover: number | undefined;

  constructor(box: HTMLElement, table: HTMLTableElement, slots: number) {
    this.#slots = slots;
    const root = svg("svg", {
      viewBox: `0 0 ${W} ${H}`,
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": "Time per stage over the last minute; the table beside it holds the numbers",
    });
    this.#areas = STAGES.map((_, at) => svg("path", { class: `area s${at}` }));
    root.append(this.#grid, ...this.#areas);
    box.append(root, ...this.#ticks, this.#hair, this.#empty);
    table.append(
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, h("span", { class: "sr" }, "Stage")),
          h("th", { scope: "col" }, "mean"),
          h("th", { scope: "col" }, "p95"),
        ),
      ),
    );
    const body = h("tbody", {});
    for (const stage of [...STAGES, "total"] as const) {
      const mean = h("td", {}, "–");
      const p95 = h("td", { class: "dim" }, "–");
      const at = STAGES.indexOf(stage as Stage);
      body.append(
        h(
          "tr",
          stage === "total" ? { class: "total" } : {},
          h(
            "th",
            { scope: "row" },
            stage === "total" ? undefined : h("i", { class: `s${at}` }),
            stage === "total" ? "Total" : NAMES[stage],
          ),
          mean,
          p95,
        ),
      );
      this.#rows.set(stage, { mean, p95 });
    }
    table.append(body);
    box.addEventListener("pointermove", (event) => {
      const { left, width } = box.getBoundingClientRect();
      const share = Math.min(1, Math.max(0, (event.clientX - left) / Math.max(1, width)));
      this.#hover = share;
      this.#hair.style.left = `${share * 100}%`;
      this.#legend();
    });
    box.addEventListener("pointerleave", () => {
      this.#hover = undefined;
      this.#legend();
    });
    this.#draw();
  }

  push(stages: Stages | null | undefined): void {
    // Nothing is known before the first figures; a gap after them is one.
    if (!stages && this.#history.length === 0) return;
    this.#history.push(stages ?? undefined);
    if (this.#history.length > this.#slots) this.#history.shift();
    this.#draw();
  }

  clear(): void {
    this.#history = [];
    this.#draw();
  }

  #draw(): void {
    const mean = (stages: Stages | undefined, stage: Stage): number => Math.max(0, stages?.[stage]?.mean ?? 0);
    const sums = this.#history.map((stages) => STAGES.reduce((sum, stage) => sum + mean(stages, stage), 0));
    const most = Math.max(0, ...sums);
    const top = ceiling(most);
    const slots = span(this.#history.length, this.#slots);
    const first = slots - this.#history.length;
    const x = (at: number): string => (((first + at) / (slots - 1)) * W).toFixed(1);
    const y = (value: number): string => (H - (value / top) * H).toFixed(2);
    const base = this.#history.map(() => 0);
    STAGES.forEach((stage, index) => {
      const lower = base.map((value, at) => `${x(at)} ${y(value)}`).reverse();
      const upper = this.#history.map((stages, at) => {
        base[at] = (base[at] ?? 0) + mean(stages, stage);
        return `${x(at)} ${y(base[at] ?? 0)}`;
      });
      this.#areas[index]?.setAttribute("d", upper.length > 1 ? `M${[...upper, ...lower].join("L")}Z` : "");
    });
    const some = most > 0;
    this.#empty.hidden = some;
    this.#grid.setAttribute("d", `M0 0H${W}${some ? `M0 ${H / 2}H${W}` : ""}M0 ${H}H${W}`);
    this.#ticks.forEach((tick, at) => {
      tick.hidden = !some;
      tick.style.top = at === 0 ? "0" : "50%";
      text(tick, `${at === 0 ? top : top / 2} ms`);
    });
    this.#legend();
  }

  #legend(): void {
    const slots = span(this.#history.length, this.#slots);
    const first = slots - this.#history.length;
    const at =
      this.#hover === undefined ? this.#history.length - 1 : Math.round(this.#hover * (slots - 1)) - first;
    const stages = this.#history[at];
    this.#hair.hidden = this.#hover === undefined || !stages;
    for (const [stage, row] of this.#rows) {
      text(row.mean, round(stages?.[stage]?.mean, 1));
      text(row.p95, round(stages?.[stage]?.p95, 1));
    }
  }
}
