// The live page. For tests and scripts it is stable in two ways.
//
// Ids: every control has one, as in index.html. Transport: start, pause, record-out, record-in, listen, fullscreen,
// popout. Source: source-camera, source-screen, source-file, source-test, camera, pattern, video-file, mic, measure.
// Picture: size, width, height, fps, codec. Model: model, workflow-file, workflow-clear, node-fields. Buffer: batch-size,
// threshold, max-batches, leaky. Access: token. Shown: status (its data-phase is `comfy.state`), video-in, video-out,
// out-text, ring, readouts, latency-p50, latency-p95, gauge (its data-state is the buffer's state), buffer-figures,
// stages-legend, texts, notices (each with data-code), help.
//
// `window.comfy`, read-only: state, connection, session, stats, buffer, rtc, latency, pictures, texts, errors, output; see
// `Comfy` below. States: idle, opening, connecting, reconnecting, failed, and while connected the service's: connecting,
// loading, filling, running, paused, passthrough, failed.
//
// Query: source, camera, pattern, mic, measure, size=WxH (or width and height), fps, codec, model (`passthrough` for none),
// batch_size, threshold, max_batches, leaky, theme, token, view=clean, autostart=1.

import { takeTokenFromAddress } from "./api.ts";
import { App } from "./app.ts";
import { format, parse } from "./params.ts";
import type { ApiErrorBody, BufferMessage, Stats } from "./protocol.ts";
import type { RtcFigures } from "./rtc.ts";
import { initTheme, nextTheme } from "./theme.ts";
import { byId } from "./ui/dom.ts";
import { listenForKeys } from "./ui/keys.ts";

export interface Comfy {
  readonly state: string;
  /** `RTCPeerConnection.connectionState`, or "none". */
  readonly connection: string;
  /** The session's id at the service. */
  readonly session: string | undefined;
  readonly stats: Stats | undefined;
  readonly buffer: BufferMessage | undefined;
  readonly rtc: RtcFigures;
  /** Milliseconds from painting to presenting, read from the returned pictures, newest last. */
  readonly latency: { samples: readonly number[]; p50: number | undefined; p95: number | undefined; readable: boolean };
  /** Returned pictures presented since the output began. */
  readonly pictures: number;
  readonly texts: readonly string[];
  readonly errors: readonly ApiErrorBody[];
  readonly output: MediaStream | undefined;
}

declare global {
  interface Window {
    readonly comfy?: Comfy;
  }
}

function expose(app: App): void {
  const comfy: Comfy = Object.freeze({
    get state() {
      return app.state;
    },
    get connection() {
      return app.session?.pc?.connectionState ?? "none";
    },
    get session() {
      return app.session?.id;
    },
    get stats() {
      return app.stats;
    },
    get buffer() {
      return app.buffer;
    },
    get rtc() {
      return app.rtc;
    },
    get latency() {
      const { values, p50, p95 } = app.measure.samples;
      return { samples: [...values], p50, p95, readable: !app.measure.lost };
    },
    get pictures() {
      return app.monitors.pictures;
    },
    get texts() {
      return [...app.texts.lines];
    },
    get errors() {
      return [...app.notices.errors];
    },
    get output() {
      return app.output;
    },
  });
  Object.defineProperty(window, "comfy", { value: comfy });
}

/** The clean window that the page opens shows the page's own output: a second session would cost a second model run. */
function mirror(): void {
  const video = byId<HTMLVideoElement>("video-out");
  byId("out-overlay").hidden = true;
  const look = (): void => {
    const stream = (window.opener as Window | null)?.comfy?.output ?? null;
    if (video.srcObject === stream) return;
    video.srcObject = stream;
    video.play().catch(() => undefined);
  };
  look();
  setInterval(look, 500);
}

function dropping(take: (file: File) => void): void {
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("dragging");
  });
  addEventListener("drop", (event) => {
    document.body.classList.remove("dragging");
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    for (const file of event.dataTransfer.files) take(file);
  });
}

function run(): void {
  initTheme();
  takeTokenFromAddress();
  const { choice, flags } = parse(location.search);
  if (flags.clean) document.body.dataset["view"] = "clean";
  if (flags.clean && new URLSearchParams(location.search).get("from") === "opener") return mirror();
  // Without a secure origin there is no camera to be had; the page should still start with one press.
  if ((navigator.mediaDevices as MediaDevices | undefined) === undefined && choice.source === "camera")
    choice.source = "test";

  const app = new App(choice, flags);
  expose(app);
  const on = (id: string, does: () => void): void => byId(id).addEventListener("click", does);
  const screen = byId("video-out").parentElement;
  const fullscreen = (): void =>
    void (document.fullscreenElement ? document.exitFullscreen() : screen?.requestFullscreen())?.catch(() => undefined);
  const popout = (): void =>
    void window.open("./?view=clean&from=opener", "comfystream-clean", "popup,width=960,height=540");
  const obs = (): string =>
    new URL(
      `./${format({ ...app.controls.choice, measure: undefined }, { view: "clean", autostart: "1" })}`,
      document.baseURI,
    ).href;
  const measure = byId<HTMLInputElement>("measure");

  on("start", () => void app.toggle());
  on("pause", () => app.togglePause());
  on("fullscreen", fullscreen);
  on("popout", popout);
  on("listen", () => {
    app.monitors.output.muted = !app.monitors.output.muted;
    byId("listen").setAttribute("aria-pressed", String(!app.monitors.output.muted));
  });
  on("workflow-clear", () => app.dropWorkflow());
  on("copy-link", () => {
    navigator.clipboard.writeText(new URL(`./${format(app.controls.choice)}`, document.baseURI).href).then(
      () => app.notices.news("Link copied", "It opens this page with these settings."),
      () => app.notices.news("The browser did not allow copying", "The address bar holds the same link."),
    );
  });
  for (const id of ["video-file", "workflow-file"]) {
    const input = byId<HTMLInputElement>(id);
    input.addEventListener("change", () => {
      const file = input.files?.[0];
      if (file) void app.take(file);
      // The same file, saved again, can be chosen again.
      input.value = "";
    });
  }
  dropping((file) => void app.take(file));
  listenForKeys(
    [
      { key: "s", does: "Start or stop", run: () => void app.toggle() },
      { key: "p", does: "Pause or go on", run: () => byId("pause").click() },
      { key: "r", does: "Record the output, or stop and save", run: () => byId("record-out").click() },
      { key: "m", does: "Measure latency, or do not", run: () => measure.click() },
      { key: "f", does: "Output full screen", run: fullscreen },
      { key: "o", does: "Output in a clean window", run: popout },
      { key: "t", does: "Change the theme", run: nextTheme },
    ],
    obs,
  );
  void app.load().then(() => (flags.autostart ? app.start() : undefined));
}

run();
