// The state in words and colours: the tally in the bar, and which buttons of the transport may be pressed.

import { byId, text } from "./dom.ts";

export interface Status {
  /** One word, see main.ts. */
  state: string;
  text: string;
  running: boolean;
  live: boolean;
}

export function showStatus(status: Status): void {
  byId("status").dataset["phase"] = status.state;
  text(byId("status-text"), status.text || status.state.charAt(0).toUpperCase() + status.state.slice(1));
  byId("start").classList.toggle("on", status.running);
  text(byId("start-text"), status.running ? "Stop" : status.state === "failed" ? "Start again" : "Start");
  byId("start-icon").setAttribute("href", status.running ? "#i-stop" : "#i-play");
  byId<HTMLButtonElement>("pause").disabled = !status.live;
  byId("pause").setAttribute("aria-pressed", String(status.state === "paused"));
  byId<HTMLButtonElement>("listen").disabled = !status.live;
}
