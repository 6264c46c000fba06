// The contract with the service, as docs/API.md states it: everything that crosses HTTP or a data channel is typed here
// and nowhere else. What comes from the wire is untrusted until one of the `as…` functions below has looked at it.

export type Leaky = "none" | "oldest" | "newest" | "thin";
export const LEAKY: readonly Leaky[] = ["none", "oldest", "newest", "thin"];

export interface Resolution {
  width: number;
  height: number;
}

/** A ComfyUI workflow; only the service reads what is in it. */
export type Workflow = Record<string, unknown>;

export interface ApiErrorBody {
  code: string;
  message: string;
  hint?: string;
  /** All nodes of the workflow; only those that do not run here have a `why`. */
  nodes?: { id: string; class_type: string; status: string; title?: string; why?: string }[];
}

/** What `comfy:settings` may change; what is left out stays. */
export interface Settings {
  model?: string | null;
  batch_size?: number;
  threshold?: number;
  max_batches?: number;
  leaky?: Leaky;
  paused?: boolean;
  width?: number;
  height?: number;
}

export interface OfferRequest {
  offer: { sdp: string; type: "offer" };
  prompts: Workflow | Workflow[] | null;
  resolution?: Resolution;
  settings?: Settings;
}

export interface OfferAnswer {
  sdp: string;
  type: "answer";
  id: string;
}

export interface Model {
  name: string;
  path: string;
  /** `idle`: it is loaded when it is asked for. */
  state: "ready" | "loading" | "error" | "idle";
  default: boolean;
  text?: string;
}

export interface Source {
  name: string;
  kind: "whip" | "config" | "session";
  viewers: number;
  width: number;
  height: number;
  fps: number;
}

export interface Config {
  ice_servers: RTCIceServer[];
  codecs: string[];
  limits: Record<string, number>;
  token_required: boolean;
  version: string;
}

export interface Health {
  status: "ready" | "loading" | "error";
  models: { name: string; state: string; text?: string }[];
  sessions: number;
  max_sessions: number;
  version: string;
}

export interface StreamFps {
  timestamp: number;
  fps: number;
  minute_avg_fps: number;
  minute_fps_array: { timestamp: number; fps: number }[];
}

export const STAGES = ["decode", "buffer", "model", "convert", "encode", "send"] as const;
export type Stage = (typeof STAGES)[number];

export interface Spread {
  mean: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
}

export interface BufferStats {
  state: string;
  fill: number;
  peak_fill: number;
  capacity: number;
  threshold: number;
  underruns: number;
  overruns: number;
  dropped_overrun: number;
  dropped_late: number;
}

/** Every part is optional: a session that passes pictures through has no batch, and one that just began has no stages. */
export interface Stats {
  state?: string;
  model?: string | null;
  runtime?: string | null;
  codec_in?: string | null;
  codec_out?: string | null;
  width_in?: number;
  height_in?: number;
  width?: number;
  height?: number;
  fps_in?: number;
  fps_out?: number;
  frames_in?: number;
  frames_out?: number;
  dropped?: number;
  failed?: number;
  bitrate_target?: number;
  audio_delay_ms?: number;
  audio_skew_ms?: number;
  connection?: string;
  buffer?: Partial<BufferStats> | null;
  batch?: { size?: number; batches?: number; fill?: number; full?: number; timeout?: number } | null;
  infer?: { convert_ms?: number; run_ms?: number; output_ms?: number; latency_ms?: number } | null;
  stages?: Partial<Record<Stage | "total", Partial<Spread> | null>> | null;
  latency_ms?: number;
}

/** An entry of `GET /api/sessions`. */
export interface SessionInfo {
  id: string;
  kind: "offer" | "whip" | "whep";
  /** What it publishes or watches, if that has a name. */
  name: string | null;
  /** Seconds since 1970. */
  created: number;
  /** Where its stream is; also `ended`, of one that is about to leave the list. */
  state: string;
  model: string | null;
  stats?: Stats;
}

/** The stages' figures, or nothing where no frame came through lately: then they are all zero. */
export function measured(stats: Stats | undefined): Stats["stages"] | undefined {
  return (stats?.stages?.total?.max ?? 0) > 0 ? stats?.stages : undefined;
}

/** What the service says, with a capital; not where it begins with the name of a file or of something else. */
export function sentence(words: string): string {
  if (!/^[a-z]+(?=[ ,;]|$)/.test(words)) return words;
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** The first part of what the service says of a model. What did not work, and why, follows it. */
export function brief(words: string | undefined): string {
  return (words ?? "").split("; ")[0]?.replace(/, from \/\S+$/, "") ?? "";
}

export type ServerState = "connecting" | "loading" | "filling" | "running" | "paused" | "passthrough" | "failed";

export type ControlRequest =
  | { type: "get_nodes" }
  | { type: "update_prompts"; prompts: Workflow[] }
  | ({ type: "update_resolution" } & Resolution)
  | { type: "pause_prompts" }
  | { type: "resume_prompts" }
  | { type: "stop_prompts" }
  | ({ type: "comfy:settings" } & Settings)
  | { type: "comfy:stats"; interval_ms: number }
  | { type: "comfy:ping"; sent: number };

/** A field of a workflow's node as `nodes_info` tells it; choice lists hold their options in `value`. */
export interface NodeInput {
  value?: unknown;
  type?: string;
  min?: number;
  max?: number;
  step?: number;
}

export interface NodeInfo {
  class_type: string;
  inputs: Record<string, NodeInput>;
}

export interface BufferMessage {
  type: "comfy:buffer";
  state: string;
  fill: number;
  capacity: number;
  threshold: number;
  expected_ms?: number;
}

/**
 * A message about the buffer with what the figures told since. Messages come when something changes, figures all the
 * time; and "overrun" is an event, after which no message says that all is well again.
 */
export function refresh(message: BufferMessage, stats: Partial<BufferStats> | null | undefined): BufferMessage {
  if (!stats) return message;
  const {
    fill = message.fill,
    capacity = message.capacity,
    threshold = message.threshold,
    state = message.state,
  } = stats;
  // A buffer that is not there has no name for its state.
  return { ...message, fill, capacity, threshold, state: state || "none" };
}

export interface StateMessage {
  type: "comfy:state";
  state: ServerState;
  text?: string;
  progress?: number;
}

interface Done<T extends string> {
  type: T;
  success: boolean;
  error?: string;
}

export type ControlMessage =
  | { type: "nodes_info"; nodes: Record<string, Record<string, NodeInfo>> }
  | Done<"prompts_updated">
  | Done<"resolution_updated">
  | Done<"prompts_paused">
  | Done<"prompts_resumed">
  | Done<"prompts_stopped">
  | { type: "comfy:settings"; success: boolean; settings: Settings }
  | { type: "comfy:stats"; success?: boolean; stats?: Stats }
  | { type: "comfy:pong"; sent: number; time: number }
  | StateMessage
  | BufferMessage
  | { type: "error"; error: ApiErrorBody; request?: string; fatal?: boolean };

/** The answer that belongs to a request; `comfy:stats` is answered once and then pushed. */
export const ANSWER: Record<ControlRequest["type"], ControlMessage["type"]> = {
  get_nodes: "nodes_info",
  update_prompts: "prompts_updated",
  update_resolution: "resolution_updated",
  pause_prompts: "prompts_paused",
  resume_prompts: "prompts_resumed",
  stop_prompts: "prompts_stopped",
  "comfy:settings": "comfy:settings",
  "comfy:stats": "comfy:stats",
  "comfy:ping": "comfy:pong",
};

const CONTROL_TYPES: ReadonlySet<string> = new Set<string>([
  ...Object.values(ANSWER),
  "comfy:state",
  "comfy:buffer",
  "error",
]);

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parse(text: unknown): unknown {
  if (typeof text !== "string") return undefined;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

/** A message of the control channel, or nothing where this page does not know it: newer services may say more. */
export function asControlMessage(text: unknown): ControlMessage | undefined {
  const value = parse(text);
  if (!isRecord(value) || typeof value["type"] !== "string" || !CONTROL_TYPES.has(value["type"])) return undefined;
  if (value["type"] === "error") {
    return { ...value, type: "error", error: asErrorBody(value) } as ControlMessage;
  }
  return value as unknown as ControlMessage;
}

/** The text of a message on the data channel. ComfyStream's warm-up marks itself in the text; nobody wants to read it. */
export function asText(text: unknown): string | undefined {
  const value = parse(text);
  if (!isRecord(value) || value["type"] !== "text" || typeof value["data"] !== "string") return undefined;
  return value["data"].includes("__WARMUP_SENTINEL__") ? undefined : value["data"];
}

/** The error of an answer, whatever a proxy in between has made of it. */
export function asErrorBody(value: unknown, otherwise = "The service gave no reason"): ApiErrorBody {
  const error = isRecord(value) ? value["error"] : undefined;
  if (typeof error === "string") return { code: "error", message: error };
  if (!isRecord(error)) return { code: "unknown", message: otherwise };
  const body: ApiErrorBody = {
    code: typeof error["code"] === "string" ? error["code"] : "unknown",
    message: typeof error["message"] === "string" ? error["message"] : otherwise,
  };
  if (typeof error["hint"] === "string") body.hint = error["hint"];
  if (Array.isArray(error["nodes"])) body.nodes = error["nodes"] as NonNullable<ApiErrorBody["nodes"]>;
  return body;
}

/** The workflows of a file: one, or a list of them. */
export function asWorkflows(value: unknown): Workflow[] | undefined {
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0 || !list.every(isRecord)) return undefined;
  if (!list.every((each) => Object.keys(each).length > 0)) return undefined;
  return list;
}
