// The flight buffer as a row of cells, one to a frame and grouped by batches, with a mark where it starts to play out.

import { h, text } from "../ui/dom.ts";

export interface Level {
  state: string;
  fill: number;
  capacity: number;
  threshold: number;
  batch: number;
}

/** Beyond this the cells would be hairlines; then a cell stands for several frames. */
const MOST = 72;

export class Gauge {
  readonly #box: HTMLElement;
  readonly #cells = h("div", { class: "cells" });
  readonly #label = h("span", {});
  readonly #mark = h("div", { class: "mark" }, this.#label);
  #layout = "";

  constructor(box: HTMLElement) {
    this.#box = box;
    box.append(this.#cells, this.#mark);
    this.show(undefined);
  }

  show(level: Level | undefined): void {
    const capacity = level && level.capacity > 0 ? level.capacity : 0;
    const per = Math.max(1, Math.ceil(capacity / MOST));
    const count = capacity > 0 ? Math.ceil(capacity / per) : 24;
    const batch = level && per === 1 ? level.batch : 0;
    const layout = `${count} ${batch}`;
    if (layout !== this.#layout) {
      this.#layout = layout;
      this.#cells.replaceChildren(
        ...Array.from({ length: count }, (_, at) =>
          h("i", batch > 1 && at < count - 1 && (at + 1) % batch === 0 ? { class: "edge" } : {}),
        ),
      );
    }
    const on = Math.ceil((level?.fill ?? 0) / per);
    [...this.#cells.children].forEach((cell, at) => cell.classList.toggle("on", at < on));
    this.#box.dataset["state"] = level?.state ?? "none";
    const marked = level !== undefined && level.threshold > 0 && capacity > 0;
    this.#mark.hidden = !marked;
    if (marked) {
      const share = Math.min(1, level.threshold / capacity);
      this.#mark.style.left = `calc(${share * 100}% - 1px)`;
      this.#mark.classList.toggle("late", share > 0.6);
      text(this.#label, `plays from ${level.threshold}`);
    }
    this.#box.setAttribute("aria-valuemax", String(capacity || 1));
    this.#box.setAttribute("aria-valuenow", String(level?.fill ?? 0));
    this.#box.setAttribute(
      "aria-valuetext",
      level && capacity ? `${level.fill} of ${capacity} frames, plays from ${level.threshold}` : "empty",
    );
  }
}
