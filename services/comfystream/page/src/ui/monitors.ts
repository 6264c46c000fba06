// The two pictures and what is written over them while there is none.

import { sentence, type BufferMessage, type StateMessage } from "../protocol.ts";
import type { Phase } from "../session.ts";
import { byId, round, text } from "./dom.ts";
import { actionButton, type Action } from "./notices.ts";

export interface View {
  phase: Phase;
  text: string;
  /** What starting would do, or what to do about a failure. */
  detail: string;
  server: StateMessage | undefined;
  buffer: BufferMessage | undefined;
  /** When `buffer` came, for the countdown. */
  bufferAt: number;
  pictures: number;
}

interface Ring {
  share?: number;
  text: string;
}

export class Monitors {
  readonly input = byId<HTMLVideoElement>("video-in");
  readonly output = byId<HTMLVideoElement>("video-out");
  /** Pictures presented since the output began. */
  pictures = 0;
  #counting = false;

  showInput(stream: MediaStream | undefined): void {
    // Without its sound: hearing oneself helps nobody, and `muted` can be undone by the browser's own controls.
    const video = stream?.getVideoTracks() ?? [];
    this.input.srcObject = video.length > 0 ? new MediaStream(video) : null;
    byId("in-overlay").hidden = video.length > 0;
  }

  showOutput(stream: MediaStream | undefined): void {
    if (this.output.srcObject === (stream ?? null)) return;
    this.pictures = 0;
    this.output.srcObject = stream ?? null;
    if (!stream) return;
    this.output.play().catch(() => undefined);
    this.#count();
  }

  #count(): void {
    if (this.#counting) return;
    this.#counting = true;
    if (typeof this.output.requestVideoFrameCallback !== "function") {
      this.output.addEventListener("timeupdate", () => (this.pictures += 1));
      return;
    }
    const next = (): void => {
      this.pictures += 1;
      this.output.requestVideoFrameCallback(next);
    };
    this.output.requestVideoFrameCallback(next);
  }

  /** What would be sent. */
  plan(kind: string, words: string): void {
    text(byId("in-text"), words);
    byId("in-sign").setAttribute("href", `#i-${kind}`);
  }

  /** Ways out of a failure, where people look when there is no picture. */
  offer(actions: Action[], code = ""): void {
    byId("out-overlay").dataset["code"] = code;
    byId("out-actions").replaceChildren(...actions.map(actionButton));
  }

  show(view: View): void {
    const overlay = byId("out-overlay");
    const { message, detail, ring } = describe(view);
    overlay.hidden = message === "";
    overlay.classList.toggle("blank", view.pictures === 0);
    overlay.classList.toggle("needed", view.phase === "failed" || view.phase === "idle");
    text(byId("out-text"), message);
    text(byId("out-detail"), detail);
    const box = byId("ring");
    box.hidden = ring === undefined;
    if (ring) {
      box.classList.toggle("endless", ring.share === undefined);
      const share = ring.share ?? 0.25;
      byId<SVGElement>("ring-value").style.strokeDasharray = `${share * 100} 100`;
      text(byId("ring-text"), ring.text);
      if (ring.share === undefined) box.removeAttribute("aria-valuenow");
      else box.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    }
    byId("monitor-out").classList.toggle("live-out", view.phase === "live" && view.pictures > 0);
  }
}

function describe(view: View): { message: string; detail: string; ring?: Ring } {
  const endless: Ring = { text: "" };
  switch (view.phase) {
    case "idle":
      return { message: "Nothing is running", detail: view.detail };
    case "failed":
      return { message: view.text, detail: view.detail };
    case "opening":
    case "connecting":
    case "reconnecting":
      return { message: view.text, detail: view.detail, ring: endless };
    case "live":
  }
  const { server, buffer } = view;
  switch (server?.state) {
    case "loading": {
      const share = server.progress;
      return {
        message: sentence(server.text || "Loading the model"),
        detail: "",
        ring: share === undefined ? endless : { share, text: `${Math.floor(share * 100)} %` },
      };
    }
    case "filling":
      return { message: sentence(server.text || "Filling the flight buffer"), ...filling(buffer, view.bufferAt) };
    case "paused":
      return { message: "Paused", detail: "The session is kept; P goes on." };
    case "failed":
      return {
        message: sentence(server.text || "The model failed"),
        detail: "The session is still there: choose another model, or stop.",
      };
    case "connecting":
      return { message: sentence(server.text || "The service is getting ready"), detail: "", ring: endless };
    default:
      return view.pictures > 0
        ? { message: "", detail: "" }
        : { message: "Waiting for the first picture", detail: "", ring: endless };
  }
}

function filling(buffer: BufferMessage | undefined, at: number): { detail: string; ring: Ring } {
  if (!buffer || buffer.threshold <= 0) return { detail: "", ring: { text: "" } };
  const share = Math.min(1, buffer.fill / buffer.threshold);
  const left =
    buffer.expected_ms === undefined ? undefined : Math.max(0, buffer.expected_ms - (performance.now() - at));
  return {
    detail: `${buffer.fill} of ${buffer.threshold} frames`,
    ring: { share, text: left === undefined ? `${Math.floor(share * 100)} %` : `${round(left / 1000, 1)} s` },
  };
}
