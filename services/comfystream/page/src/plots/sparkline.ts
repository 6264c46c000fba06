// A line over time with an optional band above it, scaled to itself from zero. SVG, so that colours follow the theme.

import { svg, text, h } from "../ui/dom.ts";

export interface Point {
  value: number;
  /** Upper edge of the band, where there is one. */
  high?: number;
}

const W = 600;
const H = 100;

/** A round number not below `value`, so that the scale does not breathe with every sample. */
export function ceiling(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const step = [1, 1.5, 2, 3, 4, 5, 7.5, 10].find((each) => each * power >= value) ?? 10;
  return step * power;
}

/** How much of the time axis is shown: it grows with what there is, so that the first seconds are no sliver. */
export function span(points: number, slots: number): number {
  return Math.min(slots, Math.max(Math.ceil(slots / 4), points));
}

export class Sparkline {
  readonly #line = svg("path", { class: "line" });
  readonly #band = svg("path", { class: "band" });
  readonly #tick = h("span", { class: "tick" });
  readonly #empty: HTMLElement;
  readonly #slots: number;
  readonly #unit: string;

  constructor(box: HTMLElement, slots: number, unit: string, empty: string) {
    this.#slots = slots;
    this.#unit = unit;
    this.#empty = h("span", { class: "empty" }, empty);
    const root = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", "aria-hidden": "true" });
    root.append(svg("path", { class: "grid", d: `M0 0H${W}M0 ${H}H${W}` }), this.#band, this.#line);
    this.#tick.style.top = "0";
    box.append(root, this.#tick, this.#empty);
  }

  show(points: readonly (Point | undefined)[]): void {
    const shown = points.slice(-this.#slots);
    const top = ceiling(Math.max(0, ...shown.map((point) => point?.high ?? point?.value ?? 0)));
    const slots = span(shown.length, this.#slots);
    const first = slots - shown.length;
    const x = (at: number): string => (((first + at) / (slots - 1)) * W).toFixed(1);
    const y = (value: number): string => (H - (Math.min(value, top) / top) * H).toFixed(1);
    let line = "";
    let band = "";
    let upper: string[] = [];
    let lower: string[] = [];
    // Neither goes on over a gap: nothing is known of that time.
    const lift = (): void => {
      if (upper.length > 1) band += `M${[...upper, ...lower].join("L")}Z`;
      upper = [];
      lower = [];
    };
    shown.forEach((point, at) => {
      if (!point) return lift();
      line += `${upper.length > 0 ? "L" : "M"}${x(at)} ${y(point.value)}`;
      upper.push(`${x(at)} ${y(point.high ?? point.value)}`);
      lower.unshift(`${x(at)} ${y(point.value)}`);
    });
    lift();
    this.#line.setAttribute("d", line);
    this.#band.setAttribute("d", band);
    const some = line !== "";
    this.#empty.hidden = some;
    this.#tick.hidden = !some;
    text(this.#tick, `${top} ${this.#unit}`);
  }
}
