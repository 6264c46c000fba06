// Sentences that are put together from choices and figures.

import type { Choice } from "../params.ts";
import { sentence, type StateMessage, type Stats } from "../protocol.ts";
import type { RtcFigures } from "../rtc.ts";
import type { Kind } from "../source/open.ts";
import { byId, text } from "./dom.ts";

export const SOURCES: Record<Kind, string> = {
  camera: "your camera",
  screen: "your screen",
  file: "a video file",
  test: "the test pattern",
};

/** What starting would do: `input` for the first monitor, `output` for the second. */
export function plan(
  choice: Readonly<Choice>,
  file: File | undefined,
  model: string,
): { input: string; output: string } {
  const { source, width, height, fps } = choice;
  const input = source === "file" && file ? file.name : SOURCES[source];
  return {
    input:
      source === "file" && !file
        ? "Choose a video under Source, or drop one here"
        : input.charAt(0).toUpperCase() + input.slice(1),
    output: `Start sends ${input} ${model ? `through ${model}` : "there and back"}, at ${width} × ${height} and ${fps} frames a second.`,
  };
}

/** What the service says of its state, where the page has no shorter word for it. */
export function said(server: StateMessage | undefined): string {
  switch (server?.state) {
    case "running":
      return "Running";
    case "passthrough":
      return "Passing through";
    case "paused":
      return "Paused";
    default:
      return sentence(server?.text ?? "");
  }
}

export function showMeta(rtc: RtcFigures, stats: Stats | undefined): void {
  const join = (...parts: (string | null | undefined)[]): string => parts.filter(Boolean).join(" · ");
  text(byId("in-meta"), join(rtc.size_sent, rtc.codec_sent));
  text(byId("out-meta"), join(stats?.model, rtc.size_received, rtc.codec_received));
}
