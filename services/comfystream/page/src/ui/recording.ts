// The two record buttons.

import { Recording } from "../recorder.ts";
import { byId, text } from "./dom.ts";

export class RecordButton {
  readonly #button: HTMLButtonElement;
  readonly #label: HTMLElement;
  readonly #idle: string;
  readonly #what: string;
  #recording: Recording | undefined;
  #stream: MediaStream | undefined;

  constructor(what: "in" | "out", failed: (error: unknown) => void) {
    this.#what = what;
    this.#button = byId<HTMLButtonElement>(`record-${what}`);
    this.#label = byId(`record-${what}-text`);
    this.#idle = this.#label.textContent ?? "";
    this.#button.addEventListener("click", () => {
      try {
        this.toggle();
      } catch (error) {
        failed(error);
      }
    });
  }

  get recording(): boolean {
    return this.#recording !== undefined;
  }

  /** What would be recorded; another stream, or none, ends what is being recorded. */
  set stream(stream: MediaStream | undefined) {
    if (stream === this.#stream) return;
    this.#recording?.stop();
    this.#stream = stream;
    this.#button.disabled = !stream;
  }

  toggle(): void {
    if (this.#recording) return this.#recording.stop();
    if (!this.#stream) return;
    const recording = new Recording(this.#stream, this.#what);
    this.#recording = recording;
    recording.onEnd(() => {
      this.#recording = undefined;
      this.show();
    });
    this.show();
  }

  show(): void {
    this.#button.setAttribute("aria-pressed", String(this.recording));
    const seconds = Math.floor(this.#recording?.seconds ?? 0);
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    text(this.#label, this.recording ? `Stop, ${time}` : this.#idle);
  }
}
