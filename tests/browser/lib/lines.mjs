// What whoever runs a scenario is told and tells.

import { createInterface } from "node:readline";

export class Lines {
  #lines;

  constructor(input) {
    this.#lines = createInterface({ input })[Symbol.asyncIterator]();
  }

  /** Says that something is to be done now, and waits for the line that says that it is. */
  async ask(event) {
    console.log(JSON.stringify({ event }));
    const { done, value } = await this.#lines.next();
    if (done) throw new Error(`nobody answered to "${event}"`);
    return value;
  }
}
