// What is chosen on the page, and its form in the address: every control can be preset by a query parameter, and the
// address always holds what differs from the defaults, so that a reload or a shared link gives the same page.

import { LEAKY, type Leaky } from "./protocol.ts";
import { KINDS, type Kind } from "./source/open.ts";
import { PATTERNS, type Pattern } from "./source/pattern.ts";

export interface Choice {
  source: Kind;
  /** A device's id, or a part of its name. */
  camera: string;
  pattern: Pattern;
  mic: boolean;
  /** Undefined: where the picture is the page's own anyway. Nobody wants a strip in a camera's picture unasked. */
  measure: boolean | undefined;
  width: number;
  height: number;
  fps: number;
  codec: string;
  /** `null` is pass-through; undefined leaves it to the service. */
  model: string | null | undefined;
  batch_size: number | undefined;
  threshold: number | undefined;
  max_batches: number | undefined;
  leaky: Leaky | undefined;
}

export const DEFAULTS: Choice = {
  source: "camera",
  camera: "",
  pattern: "bars",
  mic: false,
  measure: undefined,
  width: 512,
  height: 512,
  fps: 30,
  codec: "",
  model: undefined,
  batch_size: undefined,
  threshold: undefined,
  max_batches: undefined,
  leaky: undefined,
};

export interface Flags {
  autostart: boolean;
  clean: boolean;
}

/** Whether the time is painted into what is sent. */
export function measures(choice: Readonly<Choice>): boolean {
  return choice.measure ?? (choice.source === "test" || choice.source === "file");
}

const PASS_THROUGH = "passthrough";

function oneOf<T extends string>(all: readonly T[], value: string | null): T | undefined {
  return all.find((each) => each === value);
}

export function parse(search: string): { choice: Choice; flags: Flags } {
  const query = new URLSearchParams(search);
  const choice: Choice = { ...DEFAULTS };
  const integer = (name: string, least: number, most: number): number | undefined => {
    const value = Number.parseInt(query.get(name) ?? "", 10);
    return Number.isNaN(value) ? undefined : Math.min(most, Math.max(least, value));
  };
  const flag = (name: string): boolean | undefined => {
    const value = query.get(name);
    return value === null ? undefined : !["0", "false", "off", "no"].includes(value);
  };
  choice.source = oneOf(KINDS, query.get("source")) ?? choice.source;
  choice.camera = query.get("camera") ?? choice.camera;
  choice.pattern = oneOf(PATTERNS, query.get("pattern")) ?? choice.pattern;
  choice.mic = flag("mic") ?? choice.mic;
  const clean = query.get("view") === "clean";
  // A picture for a broadcast carries no code unless it is asked for.
  choice.measure = flag("measure") ?? (clean ? false : undefined);
  const size = /^(\d+)x(\d+)$/.exec(query.get("size") ?? "");
  choice.width = integer("width", 64, 4096) ?? (size ? Number(size[1]) : choice.width);
  choice.height = integer("height", 64, 4096) ?? (size ? Number(size[2]) : choice.height);
  // `frameRate` is what ComfyStream's page called it.
  choice.fps = integer("fps", 1, 120) ?? integer("frameRate", 1, 120) ?? choice.fps;
  choice.codec = query.get("codec") ?? choice.codec;
  const model = query.get("model");
  if (model !== null) choice.model = model === "" || model === PASS_THROUGH ? null : model;
  choice.batch_size = integer("batch_size", 1, 64) ?? integer("batch", 1, 64);
  choice.threshold = integer("threshold", 0, 64);
  choice.max_batches = integer("max_batches", 1, 64);
  choice.leaky = oneOf(LEAKY, query.get("leaky"));
  return { choice, flags: { autostart: flag("autostart") ?? false, clean } };
}

/** The query for a choice. `model` stands in it only if someone chose it: the service's default may change. */
export function format(choice: Choice, more: Record<string, string> = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(choice) as [keyof Choice, Choice[keyof Choice]][]) {
    if (value === DEFAULTS[name] || value === undefined || name === "width" || name === "height") continue;
    query.set(
      name,
      name === "model" && value === null
        ? PASS_THROUGH
        : typeof value === "boolean"
          ? value
            ? "1"
            : "0"
          : String(value),
    );
  }
  if (choice.width !== DEFAULTS.width || choice.height !== DEFAULTS.height)
    query.set("size", `${choice.width}x${choice.height}`);
  for (const [name, value] of Object.entries(more)) query.set(name, value);
  const string = query.toString();
  return string ? `?${string}` : "";
}
