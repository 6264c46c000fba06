// Playing a named source: WHEP, the way of RFC 9725 turned round. Offer by POST, late candidates by PATCH, end by DELETE.

import { ApiError, headers, request, sources, url } from "./api.ts";
import { gathered, pause } from "./signalling.ts";

export type WhepState = "connecting" | "waiting" | "playing" | "reconnecting" | "failed" | "ended";

export interface WhepEvents {
  state: (state: WhepState, text: string) => void;
  stream: (stream: MediaStream) => void;
  error: (error: unknown) => void;
}

/** Most addresses of a machine are known by then; the rest follow by PATCH. */
const GATHER_MS = 100;
const WAIT_MS = 2000;
const GRACE_MS = 4000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000];

export class WhepPlayer {
  pc: RTCPeerConnection | undefined;
  readonly #name: string;
  readonly #ice: RTCIceServer[];
  readonly #events: WhepEvents;
  #location: string | undefined;
  #etag: string | undefined;
  #late: RTCIceCandidate[] = [];
  #abort = new AbortController();
  #grace: ReturnType<typeof setTimeout> | undefined;
  #attempt = 0;

  constructor(name: string, ice: RTCIceServer[], events: WhepEvents) {
    this.#name = name;
    this.#ice = ice;
    this.#events = events;
  }

  start(): void {
    this.#events.state("connecting", `Connecting to ${this.#name}`);
    void this.#run();
  }

  stop(): void {
    this.#abort.abort();
    this.#close();
    this.#events.state("ended", "Stopped");
  }

  async #run(): Promise<void> {
    this.#abort = new AbortController();
    const { signal } = this.#abort;
    try {
      // Looked up first: browsers print every 404 to their console, and this one is no error.
      const there = await sources().then(
        (all) => all.some((each) => each.name === this.#name),
        (error: unknown) => {
          if (error instanceof ApiError && error.status === 404) return true;
          throw error;
        },
      );
      if (signal.aborted) return;
      if (!there) return this.#wait(signal);
      await this.#connect(signal);
    } catch (error) {
      if (signal.aborted) return;
      this.#close();
      const status = error instanceof ApiError ? error.status : -1;
      if (status === 404) return this.#wait(signal);
      if (status === 0 || status === 503) return this.#again(signal);
      this.#events.state("failed", error instanceof Error ? error.message : "The connection failed");
      this.#events.error(error);
    }
  }

  async #connect(signal: AbortSignal): Promise<void> {
    const pc = new RTCPeerConnection({ iceServers: this.#ice, bundlePolicy: "max-bundle" });
    this.pc = pc;
    const stream = new MediaStream();
    for (const kind of ["video", "audio"] as const) {
      const { receiver } = pc.addTransceiver(kind, { direction: "recvonly" });
      if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0;
    }
    pc.addEventListener("track", (event) => {
      stream.addTrack(event.track);
      this.#events.stream(stream);
    });
    pc.addEventListener("connectionstatechange", () => this.#look(pc, signal));
    await pc.setLocalDescription(await pc.createOffer());
    await gathered(pc, GATHER_MS);
    const sdp = pc.localDescription?.sdp ?? "";
    // From here on candidates are not in the offer that is posted.
    pc.addEventListener("icecandidate", (event) => {
      if (!event.candidate?.candidate) return;
      this.#late.push(event.candidate);
      void this.#trickle();
    });
    const endpoint = `whep/${encodeURIComponent(this.#name)}`;
    const response = await request(endpoint, {
      method: "POST",
      headers: { "Content-Type": "application/sdp" },
      body: sdp,
      signal,
    });
    const location = response.headers.get("Location");
    this.#location = location ? new URL(location, url(endpoint)).href : undefined;
    this.#etag = response.headers.get("ETag") ?? undefined;
    await pc.setRemoteDescription({ type: "answer", sdp: await response.text() });
    void this.#trickle();
  }

  /** Sends the candidates that came after the offer. Losing them is no failure while others work. */
  async #trickle(): Promise<void> {
    const sdp = this.pc?.localDescription?.sdp;
    if (!this.#location || !sdp || this.#late.length === 0) return;
    const candidates = this.#late;
    this.#late = [];
    const line = (name: string): string => new RegExp(`^a=${name}:.*$`, "m").exec(sdp)?.[0].trim() ?? "";
    // Bundled: the candidates of the first medium, which is the video, are those of all. Its port and formats mean nothing.
    const media = "m=video 9 UDP/TLS/RTP/SAVPF 0";
    const fragment = [
      line("group"),
      media,
      line("mid"),
      line("ice-ufrag"),
      line("ice-pwd"),
      ...candidates.map((each) => `a=${each.candidate}`),
    ];
    await fetch(this.#location, {
      method: "PATCH",
      headers: headers({ "Content-Type": "application/trickle-ice-sdpfrag", "If-Match": this.#etag ?? "*" }),
      body: `${fragment.filter(Boolean).join("\r\n")}\r\n`,
    }).catch(() => undefined);
  }

  #look(pc: RTCPeerConnection, signal: AbortSignal): void {
    if (pc !== this.pc) return;
    clearTimeout(this.#grace);
    if (pc.connectionState === "connected") {
      this.#attempt = 0;
      this.#events.state("playing", `Playing ${this.#name}`);
    } else if (pc.connectionState === "disconnected") {
      this.#events.state("reconnecting", "Lost contact, waiting for it to come back");
      this.#grace = setTimeout(() => this.#again(signal), GRACE_MS);
    } else if (pc.connectionState === "failed") {
      this.#again(signal);
    }
  }

  #again(signal: AbortSignal): void {
    this.#close();
    const wait = BACKOFF_MS[Math.min(this.#attempt, BACKOFF_MS.length - 1)] ?? 8000;
    this.#attempt += 1;
    this.#events.state("reconnecting", `The connection broke, reconnecting (try ${this.#attempt})`);
    this.#later(wait, signal);
  }

  #wait(signal: AbortSignal): void {
    this.#events.state("waiting", `Nobody sends ${this.#name} yet`);
    this.#later(WAIT_MS, signal);
  }

  #later(wait: number, signal: AbortSignal): void {
    pause(wait, signal).then(
      () => this.#run(),
      () => undefined,
    );
  }

  #close(): void {
    clearTimeout(this.#grace);
    this.pc?.close();
    this.pc = undefined;
    this.#late = [];
    if (this.#location)
      void fetch(this.#location, { method: "DELETE", headers: headers(), keepalive: true }).catch(() => undefined);
    this.#location = undefined;
  }
}
