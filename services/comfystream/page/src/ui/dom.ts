// The few lines that a framework would be here for.

/** An element of the page by its id. What is missing is a mistake in the page, not something to work around. */
export function byId<T extends Element = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (!element) throw new Error(`#${id} is not in the page`);
  return element as unknown as T;
}

type Child = Node | string | undefined;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string>,
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child): child is Node | string => child !== undefined));
  return element;
}

export function svg(tag: string, attributes: Record<string, string>): SVGElement {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Writes only what changed: a live region would otherwise be read out again. */
export function text(element: Element, value: string): void {
  if (element.textContent !== value) element.textContent = value;
}

/** A number for people: so many digits that it does not dance. */
export function round(value: number | undefined | null, digits = 0): string {
  return value === undefined || value === null || !Number.isFinite(value) ? "–" : value.toFixed(digits);
}

export function kbps(value: number | undefined): [string, string] {
  if (value === undefined) return ["–", ""];
  return value >= 1000 ? [(value / 1000).toFixed(2), "Mb/s"] : [value.toFixed(0), "kb/s"];
}

export interface Figure {
  label: string;
  value: string;
  unit?: string;
  bad?: boolean;
}

/** A list of figures that keeps its elements, so that only the numbers change. */
export class FigureList {
  readonly #list: HTMLElement;
  #cells: { cell: HTMLElement; dt: HTMLElement; dd: HTMLElement; number: Text; unit: HTMLElement }[] = [];

  constructor(list: HTMLElement) {
    this.#list = list;
  }

  show(figures: Figure[]): void {
    while (this.#cells.length < figures.length) {
      const number = document.createTextNode("");
      const unit = h("small", {});
      const dt = h("dt", {});
      const dd = h("dd", {}, number, unit);
      const cell = h("div", {}, dt, dd);
      this.#list.append(cell);
      this.#cells.push({ cell, dt, dd, number, unit });
    }
    this.#cells.forEach((each, at) => {
      const figure = figures[at];
      each.cell.hidden = !figure;
      if (!figure) return;
      text(each.dt, figure.label);
      if (each.number.data !== figure.value) each.number.data = figure.value;
      // A unit of nothing is noise.
      text(each.unit, figure.value === "–" ? "" : (figure.unit ?? ""));
      each.dd.classList.toggle("bad", figure.bad ?? false);
      each.cell.classList.toggle("none", figure.value === "–");
      each.cell.classList.toggle("bad", figure.bad ?? false);
    });
  }
}
