// Text that models say: the last fifty lines.

import { byId, h } from "./dom.ts";

const MOST = 50;

export class Texts {
  readonly #list = byId("texts");
  readonly #lines: string[] = [];

  constructor(said: (message: string) => void) {
    byId("text-copy").addEventListener("click", () => {
      navigator.clipboard.writeText(this.#lines.join("\n")).then(
        () => said("Text copied"),
        () => said("The browser did not allow copying"),
      );
    });
    byId("text-clear").addEventListener("click", () => this.clear());
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  add(line: string): void {
    // Followed only by who is at the end: scrolling back to read must not be undone by the next line.
    const atEnd = this.#list.scrollTop + this.#list.clientHeight >= this.#list.scrollHeight - 8;
    this.#lines.push(line);
    this.#list.append(
      h("p", {}, h("time", {}, new Date().toLocaleTimeString([], { hour12: false })), h("span", {}, line)),
    );
    if (this.#lines.length > MOST) {
      this.#lines.shift();
      this.#list.firstElementChild?.remove();
    }
    if (atEnd) this.#list.scrollTop = this.#list.scrollHeight;
    this.#buttons();
  }

  clear(): void {
    this.#lines.length = 0;
    this.#list.replaceChildren();
    this.#buttons();
  }

  #buttons(): void {
    const none = this.#lines.length === 0;
    byId("texts-empty").hidden = !none;
    byId<HTMLButtonElement>("text-copy").disabled = none;
    byId<HTMLButtonElement>("text-clear").disabled = none;
  }
}
