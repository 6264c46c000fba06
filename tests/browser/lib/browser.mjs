// Chromium with a camera that needs no hardware, and all that it complains about.

import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import { FIELDS, film } from "./camera.mjs";

const SETUP = "run `scripts/setup.sh browser`, which installs it";
const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** What a closed network and a loaded machine would make of a browser that is left alone. */
const QUIET = [
  "--autoplay-policy=no-user-gesture-required",
  "--disable-background-networking",
  "--disable-background-timer-throttling",
  "--disable-backgrounding-occluded-windows",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-renderer-backgrounding",
  "--disable-sync",
  "--no-first-run",
];

export class Missing extends Error {}

function playwright() {
  const require = createRequire(new URL("../../../.work/browser/", import.meta.url));
  try {
    return require("playwright-core");
  } catch {
    throw new Missing(`playwright-core is missing: ${SETUP}`);
  }
}

function executable() {
  const named = process.env.CHROMIUM;
  const found = (process.env.PATH ?? "").split(delimiter).flatMap((folder) => NAMES.map((name) => join(folder, name)));
  const path = named ?? found.find((each) => existsSync(each));
  if (!path || !existsSync(path)) throw new Missing(`no Chromium is found${named ? ` at ${named}` : ""}: ${SETUP}`);
  return path;
}

/** What the console shows in red though nothing is wrong. */
function harmless(text, url) {
  // Browsers ask for it unasked where a page names no icon, as the service's JSON cannot.
  if (url.endsWith("/favicon.ico")) return true;
  // Who stops closes the connection and deletes the session; the service may have ended it at the first of these.
  return text.includes("404") && /\/api\/sessions\/\w+$/.test(new URL(url, "http://nowhere").pathname);
}

/** Runs in every page before its own scripts: keeps its peer connections where a failed scenario can ask them. */
function watchPeers() {
  const Real = window.RTCPeerConnection;
  const peers = [];
  window.RTCPeerConnection = class extends Real {
    constructor(...rest) {
      super(...rest);
      peers.push(this);
    }
  };
  Object.defineProperty(window, "rigPeers", { value: peers });
}

async function describePage() {
  const { comfy, rigPeers = [] } = window;
  const peers = [];
  for (const peer of rigPeers.slice(-2)) {
    const stats = [];
    if (peer.connectionState !== "closed") (await peer.getStats()).forEach((each) => stats.push(each));
    const wanted = ["inbound-rtp", "outbound-rtp", "candidate-pair", "local-candidate", "remote-candidate", "transport"];
    peers.push({
      connection: peer.connectionState,
      ice: peer.iceConnectionState,
      remote: peer.remoteDescription?.sdp,
      stats: stats.filter((each) => wanted.includes(each.type)),
    });
  }
  const { state, connection, session, stats, buffer, rtc, pictures, errors } = comfy ?? {};
  const text = document.body.innerText.slice(0, 2000);
  return { comfy: { state, connection, session, stats, buffer, rtc, pictures, errors }, text, peers };
}

export class Browsers {
  #servers = [];
  #pages = [];
  #films = [];

  /**
   * A browser of its own. `camera` is its size or false for none that it may use; `colours` are those of its fields.
   * Its `kill` ends it at once, as a crash would.
   */
  async open({ camera = { width: 640, height: 480, fps: 30 }, colours = FIELDS, flags = [] } = {}) {
    const args = [...QUIET, "--use-fake-device-for-media-stream", ...flags];
    if (camera) {
      const { path, remove } = film(camera.width, camera.height, camera.fps, colours);
      this.#films.push(remove);
      args.push("--use-fake-ui-for-media-stream", `--use-file-for-fake-video-capture=${path}`);
    }
    const { chromium } = playwright();
    const server = await chromium.launchServer({
      executablePath: executable(),
      args,
      // Its sandbox refuses to start for root, whom containers run tests as.
      chromiumSandbox: process.getuid?.() !== 0,
      handleSIGINT: false,
    });
    this.#servers.push(server);
    const browser = await chromium.connect(server.wsEndpoint());
    const page = async (url, settings = {}) => {
      const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...settings });
      const opened = await context.newPage();
      await opened.addInitScript(watchPeers);
      const complaints = [];
      opened.on("console", (message) => {
        const { url } = message.location();
        if (message.type() === "error" && !harmless(message.text(), url)) complaints.push(`${message.text()} (${url})`);
      });
      opened.on("pageerror", (error) => complaints.push(error.stack ?? String(error)));
      this.#pages.push({ page: opened, complaints });
      await opened.goto(url);
      return opened;
    };
    return { page, kill: () => server.kill(), close: () => server.close() };
  }

  /** What pages wrote to their consoles as errors, and what they did not catch. */
  complaints() {
    return this.#pages.flatMap((each) => each.complaints);
  }

  /** For failures: what each page shows and knows. */
  describe() {
    return Promise.all(
      this.#pages.map(async ({ page, complaints }) => {
        const url = page.url();
        const limit = new Promise((resolve) => setTimeout(resolve, 3000).unref());
        const state = await Promise.race([page.evaluate(describePage), limit]).catch((error) => ({ gone: String(error) }));
        return { url, complaints, ...state };
      }),
    );
  }

  async close() {
    await Promise.all(this.#servers.map((server) => server.kill().catch(() => undefined)));
    for (const remove of this.#films) remove();
  }
}
