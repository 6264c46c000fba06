// What a changed choice asks of a session that runs.

import type { Choice } from "./params.ts";
import type { ControlRequest, Settings } from "./protocol.ts";

export interface Changes {
  /** Whether the source has to change, and whether it takes opening it anew. */
  source: "no" | "shape" | "anew";
  /** What only an offer can say: a codec, or another medium. */
  reconnect: boolean;
  requests: ControlRequest[];
  /** Something was left to the service again. It cannot be asked for its own value while it runs with another. */
  unset: boolean;
}

export function changesOf(keys: readonly (keyof Choice)[], choice: Readonly<Choice>): Changes {
  const changed = (...some: (keyof Choice)[]): boolean => some.some((key) => keys.includes(key));
  const requests: ControlRequest[] = [];
  let unset = false;
  if (changed("width", "height")) {
    requests.push({ type: "update_resolution", width: choice.width, height: choice.height });
  }
  if (changed("model")) requests.push({ type: "comfy:settings", model: choice.model ?? null });
  // Together: a threshold may fit only the capacity that changes with it.
  const named: Settings = {};
  for (const key of ["batch_size", "threshold", "max_batches", "leaky"] as const) {
    if (!changed(key)) continue;
    if (choice[key] === undefined) unset = true;
    else Object.assign(named, { [key]: choice[key] });
  }
  if (Object.keys(named).length > 0) requests.push({ type: "comfy:settings", ...named });
  const anew = changed("source", "camera", "pattern", "mic");
  const shape = changed("width", "height", "fps", "measure");
  return { source: anew ? "anew" : shape ? "shape" : "no", reconnect: changed("codec", "mic"), requests, unset };
}
