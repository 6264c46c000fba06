// The source of a session: one at a time, opened, changed in place or for another, and let go.

import { open, type Opened, type Wanted } from "./open.ts";

export interface KeeperEvents {
  taken: (stream: MediaStream) => void;
  /** It ended by itself: unplugged, or stopped in the browser. */
  ended: () => void;
}

export class SourceKeeper {
  readonly #events: KeeperEvents;
  #opened: Opened | undefined;

  constructor(events: KeeperEvents) {
    this.#events = events;
  }

  get stream(): MediaStream | undefined {
    return this.#opened?.stream;
  }

  get stamped(): boolean {
    return this.#opened?.stamped() ?? false;
  }

  /** False where it is not wanted any more by the time it is there: permissions are asked of people. */
  async open(wanted: Wanted, still: () => boolean): Promise<boolean> {
    const opened = await open(wanted);
    if (!still()) {
      opened.stop();
      return false;
    }
    this.#opened = opened;
    this.#events.taken(opened.stream);
    opened.stream.getVideoTracks()[0]?.addEventListener("ended", () => {
      if (this.#opened === opened) this.#events.ended();
    });
    return true;
  }

  /** Makes the source fit, in place unless it has to be `anew`. True where there is another stream now. */
  async reshape(wanted: Wanted, anew: boolean, still: () => boolean): Promise<boolean> {
    const before = this.#opened;
    if (!before || (!anew && (await before.reshape(wanted)))) return false;
    // A camera that is held by the page cannot always be opened once more with other settings.
    if (before.kind === "camera" && wanted.kind === "camera") before.stop();
    const opened = await this.open(wanted, still);
    if (opened) before.stop();
    return opened;
  }

  release(): void {
    const opened = this.#opened;
    this.#opened = undefined;
    opened?.stop();
  }
}
