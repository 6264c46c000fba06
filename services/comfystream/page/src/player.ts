// The player of a named source: /whep-player?name=cam1, with &view=clean for OBS; without a name, what there is to play.
// For tests: ids as in player.html, and `window.comfy` with state, connection, pictures, rtc and errors.

import { config, sources, takeTokenFromAddress } from "./api.ts";
import type { ApiErrorBody, Source } from "./protocol.ts";
import { RtcSampler, type RtcFigures } from "./rtc.ts";
import { initTheme } from "./theme.ts";
import { byId, FigureList, h, kbps, round, text } from "./ui/dom.ts";
import { Notices } from "./ui/notices.ts";
import { WhepPlayer, type WhepState } from "./whep.ts";

const LIST_MS = 2000;
const RATES_MS = 1000;
const KINDS: Record<Source["kind"], string> = {
  whip: "published",
  config: "from the configuration",
  session: "output of a session",
};

let state: WhepState | "idle" = "idle";
let player: WhepPlayer | undefined;
let pictures = 0;
let rtc: RtcFigures = {};
const notices = new Notices();

function address(name: string, clean = false): string {
  return `./whep-player?name=${encodeURIComponent(name)}${clean ? "&view=clean" : ""}`;
}

function tally(phase: string, message: string): void {
  byId("status").dataset["phase"] = phase;
  text(byId("status-text"), message);
}

async function list(): Promise<void> {
  byId("choose").hidden = false;
  try {
    const all = await sources();
    byId("sources").replaceChildren(
      ...all.map((source) =>
        h(
          "li",
          {},
          h(
            "a",
            { href: address(source.name) },
            h("b", {}, source.name),
            h("span", {}, KINDS[source.kind] ?? source.kind),
            h("span", {}, source.width ? `${source.width} × ${source.height}` : "no size yet"),
            h("span", {}, source.fps ? `${round(source.fps, 1)} fps` : "no rate yet"),
            h("span", {}, `${source.viewers} ${source.viewers === 1 ? "viewer" : "viewers"}`),
          ),
        ),
      ),
    );
    text(
      byId("choose-text"),
      all.length > 0
        ? "Choose one to play it here."
        : "Nobody publishes yet. Send a stream to /whip/cam1, with OBS or GStreamer's whipclientsink, and it appears here as cam1.",
    );
    tally("ready", all.length === 1 ? "1 source" : `${all.length} sources`);
  } catch (error) {
    if (state !== "failed") notices.error(error);
    state = "failed";
    tally("error", "No answer");
  }
  // The link that has the focus would be replaced under it.
  const again = (): void =>
    void (byId("sources").contains(document.activeElement) ? setTimeout(again, LIST_MS) : list());
  setTimeout(again, LIST_MS);
}

async function watch(name: string): Promise<void> {
  const video = byId<HTMLVideoElement>("video-out");
  const figures = new FigureList(byId("readouts"));
  const sampler = new RtcSampler();
  byId("watch").hidden = false;
  text(byId("name"), name);
  document.title = `${name} · comfystream`;
  byId<HTMLAnchorElement>("clean").href = address(name, true);
  const ice = await config().then(
    (got) => got.ice_servers,
    () => [],
  );
  player = new WhepPlayer(name, ice, {
    state: (now, message) => {
      state = now;
      if (now === "connecting" || now === "waiting" || now === "ended") pictures = 0;
      tally(now === "playing" ? "running" : now === "ended" ? "idle" : now === "waiting" ? "connecting" : now, message);
      const over = now === "ended" || now === "failed";
      text(byId("start"), over ? "Play" : "Stop");
      byId("start").classList.toggle("on", !over);
      show(message);
    },
    stream: (stream) => {
      if (video.srcObject !== stream) video.srcObject = stream;
      video.play().catch(() => undefined);
    },
    error: (error) => notices.error(error),
  });
  let message = "";
  const show = (now = message): void => {
    message = now;
    const hidden = state === "playing" && pictures > 0;
    byId("out-overlay").hidden = hidden;
    byId("out-overlay").classList.toggle("needed", state === "failed");
    text(byId("out-text"), state === "playing" ? "Waiting for the first picture" : message);
  };
  if (typeof video.requestVideoFrameCallback === "function") {
    const next = (): void => {
      pictures += 1;
      if (pictures === 1) show();
      video.requestVideoFrameCallback(next);
    };
    video.requestVideoFrameCallback(next);
  }
  video.addEventListener("resize", () => {
    if (video.videoWidth)
      document.documentElement.style.setProperty("--aspect", `${video.videoWidth} / ${video.videoHeight}`);
  });
  byId("start").addEventListener("click", () => {
    if (state === "ended" || state === "failed") player?.start();
    else {
      player?.stop();
      video.srcObject = null;
    }
  });
  byId("listen").addEventListener("click", () => {
    video.muted = !video.muted;
    byId("listen").setAttribute("aria-pressed", String(!video.muted));
  });
  byId("fullscreen").addEventListener(
    "click",
    () =>
      void byId("screen")
        .requestFullscreen()
        .catch(() => undefined),
  );
  addEventListener("pagehide", () => player?.stop());
  const rates = async (): Promise<void> => {
    rtc = player?.pc && state === "playing" ? await sampler.look(player.pc) : {};
    const [received, unit] = kbps(rtc.kbps_received);
    figures.show([
      { label: "Picture", value: rtc.size_received ?? "–", unit: rtc.codec_received ? ` ${rtc.codec_received}` : "" },
      { label: "Frames", value: round(rtc.fps_in, 1), unit: " fps" },
      { label: "Received", value: received, unit: ` ${unit}` },
      {
        label: "Lost",
        value: rtc.loss_received === undefined ? "–" : (rtc.loss_received * 100).toFixed(1),
        unit: " %",
        bad: (rtc.loss_received ?? 0) > 0.02,
      },
      { label: "Round trip", value: round(rtc.rtt_ms), unit: " ms" },
    ]);
    setTimeout(() => void rates(), RATES_MS);
  };
  player.start();
  void rates();
}

initTheme();
takeTokenFromAddress();
const query = new URLSearchParams(location.search);
if (query.get("view") === "clean") document.body.dataset["view"] = "clean";
Object.defineProperty(window, "comfy", {
  value: Object.freeze({
    get state() {
      return state;
    },
    get connection() {
      return player?.pc?.connectionState ?? "none";
    },
    get pictures() {
      return pictures;
    },
    get rtc() {
      return rtc;
    },
    get errors(): ApiErrorBody[] {
      return [...notices.errors];
    },
  }),
});
const name = query.get("name");
void (name ? watch(name) : list());
