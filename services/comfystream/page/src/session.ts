// One session with the service: a peer connection, its two channels, and coming back when the way to it breaks.

import { ApiError, endSession, sessions } from "./api.ts";
import { Control } from "./control.ts";
import {
  asText,
  type ControlMessage,
  type OfferRequest,
  type Resolution,
  type Settings,
  type Workflow,
} from "./protocol.ts";
import { gathered, keepSize, pause, postOffer, preferCodec } from "./signalling.ts";

export type Phase = "idle" | "opening" | "connecting" | "live" | "reconnecting" | "failed";

export interface Wish {
  stream: MediaStream;
  ice: RTCIceServer[];
  codec: string;
  prompts: Workflow[] | null;
  resolution: Resolution;
  settings: Settings;
}

export interface SessionEvents {
  phase: (phase: Phase, text: string) => void;
  message: (message: ControlMessage) => void;
  text: (text: string) => void;
  output: (stream: MediaStream) => void;
  /** The control channel is open: the moment to ask for figures. */
  ready: () => void;
  error: (error: unknown) => void;
}

/** A short loss of contact heals by itself; ICE says `disconnected` for that too. */
const GRACE_MS = 4000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];
const STATS_MS = 500;

export class Session {
  pc: RTCPeerConnection | undefined;
  id: string | undefined;
  control: Control | undefined;
  /** Read anew for every connection, so that what was changed since is kept across a reconnection. */
  readonly #wish: () => Wish;
  readonly #events: SessionEvents;
  #abort = new AbortController();
  #grace: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;
  #over = false;

  constructor(wish: () => Wish, events: SessionEvents) {
    this.#wish = wish;
    this.#events = events;
  }

  async start(): Promise<void> {
    this.#events.phase("connecting", "Connecting to the service");
    await this.#try();
  }

  /** Ends the session for good; a new one needs a new object. */
  stop(): void {
    this.#over = true;
    this.#abort.abort();
    this.#close();
    // The service notices a peer that vanished after a while only; until then it would hold a place.
    if (this.id) void endSession(this.id).catch(() => undefined);
    this.id = undefined;
  }

  /** Connects anew, for what the offer alone can say: codec and microphone. */
  async restart(): Promise<void> {
    if (this.#over) return;
    this.#abort.abort();
    const before = this.id;
    this.#close();
    if (before) void endSession(before).catch(() => undefined);
    this.#events.phase("connecting", "Connecting anew");
    await this.#try();
  }

  async replaceTrack(track: MediaStreamTrack): Promise<void> {
    const sender = this.pc?.getSenders().find((each) => each.track?.kind === "video");
    await sender?.replaceTrack(track);
  }

  async #try(): Promise<void> {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      await this.#connect(signal);
    } catch (error) {
      if (this.#over || signal.aborted) return;
      this.#close();
      // During a reconnection silence and a full service may pass; everything else is said once and is final.
      const passing = error instanceof ApiError && (error.status === 0 || error.status === 503);
      if (passing && this.#attempt > 0) return this.#again();
      this.#events.phase("failed", error instanceof Error ? error.message : "The connection failed");
      this.#events.error(error);
    }
  }

  async #connect(signal: AbortSignal): Promise<void> {
    const wish = this.#wish();
    const pc = new RTCPeerConnection({ iceServers: wish.ice, bundlePolicy: "max-bundle" });
    this.pc = pc;
    for (const track of wish.stream.getTracks()) {
      const transceiver = pc.addTransceiver(track, { direction: "sendrecv", streams: [wish.stream] });
      if (track.kind !== "video") continue;
      preferCodec(transceiver, wish.codec);
      keepSize(transceiver.sender);
    }
    const control = pc.createDataChannel("control");
    this.control = new Control(control, this.#events.message, () => {
      void this.control?.request({ type: "comfy:settings" }).then(this.#events.message, () => undefined);
      void this.control?.request({ type: "comfy:stats", interval_ms: STATS_MS }).catch(() => undefined);
      this.#events.ready();
    });
    control.addEventListener("close", () => void this.#closedByPeer(pc));
    pc.createDataChannel("data").addEventListener("message", (event: MessageEvent<unknown>) => {
      const text = asText(event.data);
      if (text !== undefined) this.#events.text(text);
    });
    const output = new MediaStream();
    pc.addEventListener("track", (event) => {
      output.addTrack(event.track);
      // As fresh as possible: this page is about delay, and a lost frame is the lesser harm.
      if ("jitterBufferTarget" in event.receiver) event.receiver.jitterBufferTarget = 0;
      this.#events.output(output);
    });
    pc.addEventListener("connectionstatechange", () => this.#look(pc));

    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc);
    const offer: OfferRequest = {
      offer: { sdp: pc.localDescription?.sdp ?? "", type: "offer" },
      prompts: wish.prompts,
      resolution: wish.resolution,
      settings: wish.settings,
    };
    const answer = await postOffer(offer, signal, (attempt) =>
      this.#events.phase(this.#attempt > 0 ? "reconnecting" : "connecting", `No answer yet, try ${attempt + 1}`),
    );
    if (signal.aborted) {
      void endSession(answer.id).catch(() => undefined);
      return;
    }
    this.id = answer.id;
    await pc.setRemoteDescription({ type: "answer", sdp: answer.sdp });
  }

  #look(pc: RTCPeerConnection): void {
    if (pc !== this.pc || this.#over) return;
    clearTimeout(this.#grace);
    switch (pc.connectionState) {
      case "connected":
        this.#attempt = 0;
        this.#events.phase("live", "Connected");
        break;
      case "disconnected":
        this.#events.phase("reconnecting", "Lost contact, waiting for it to come back");
        this.#grace = setTimeout(() => this.#again(), GRACE_MS);
        break;
      case "failed":
        this.#again();
        break;
      default:
    }
  }

  /** A channel that closes in good order was closed by the service: it may have ended the session on purpose. */
  async #closedByPeer(pc: RTCPeerConnection): Promise<void> {
    if (pc !== this.pc || this.#over || pc.connectionState === "failed") return;
    const gone = await sessions().then(
      (all) => !all.some((each) => each.id === this.id),
      () => false,
    );
    if (pc !== this.pc || this.#over) return;
    if (!gone) return this.#again();
    this.#close();
    this.#events.phase("failed", "The service ended this session");
  }

  #again(): void {
    if (this.#over) return;
    this.#close();
    const wait = BACKOFF_MS[Math.min(this.#attempt, BACKOFF_MS.length - 1)] ?? 8000;
    this.#attempt += 1;
    this.#events.phase("reconnecting", `The connection broke, reconnecting (try ${this.#attempt})`);
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    pause(wait, signal).then(
      () => this.#try(),
      () => undefined,
    );
  }

  #close(): void {
    clearTimeout(this.#grace);
    const pc = this.pc;
    // Cleared first: the events of its closing are not news.
    this.pc = undefined;
    this.control = undefined;
    pc?.close();
  }
}
