// Takes the pictures of the page for the documentation, with the service and a browser:
//
//     node screenshots.mjs PROGRAM [CLIP]
//
// PROGRAM is `comfystream`, or the address of one that runs with the cartoon model, or of `npm run dev` before it; what
// models need has to be in the environment. CLIP is a video to send; without
// one, or where there is no such file, the test pattern is sent. Written are docs/pictures/page-{phone,tablet,desktop}.webp.
//
// COMFY_BROWSER_MODULES is a folder with playwright-core in it, .work/browser/node_modules in the repository otherwise;
// CHROMIUM is the browser, /usr/bin/chromium otherwise.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const PICTURES = join(ROOT, "docs/pictures");
const MODEL = join(ROOT, "models/cartoon.onnx");
const MOST_BYTES = 400 * 1024;
const START_MS = 60_000;
/** Codes that were read back before a picture is taken: then medians mean something, and the plots have a shape. */
const CODES = 60;
const SETTLE_MS = 14_000;

const SHOTS = [
  { name: "phone", width: 390, height: 844, scale: 2, theme: "light" },
  { name: "tablet", width: 820, height: 1180, scale: 1.5, theme: "light" },
  { name: "desktop", width: 1440, height: 1060, scale: 1.5, theme: "dark" },
];

const program = process.argv[2];
if (!program) {
  console.error("usage: node screenshots.mjs PROGRAM [CLIP]");
  process.exit(2);
}
const clip = [process.argv[3], join(ROOT, ".work/media/demo.mp4")].find((each) => each && existsSync(each));

function browser() {
  const modules = resolve(process.env.COMFY_BROWSER_MODULES ?? join(ROOT, ".work/browser/node_modules"));
  // Anchored beside the folder: node looks for modules in folders of that name only.
  const { chromium } = createRequire(join(dirname(modules), "from-here.js"))("playwright-core");
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      // What a page sends from its canvas should have an address that the service can reach.
      "--disable-features=WebRtcHideLocalIpsWithMdns",
      "--use-fake-device-for-media-stream=fps=30",
      "--use-fake-ui-for-media-stream",
      "--autoplay-policy=no-user-gesture-required",
      "--disable-background-networking",
      "--disable-component-update",
      "--no-first-run",
    ],
  });
}

/** The service, and where it is. */
function serve() {
  const child = spawn(resolve(program), ["serve", "--listen", "127.0.0.1:0", "--model", MODEL], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const address = new Promise((found, failed) => {
    let said = "";
    const look = (data) => {
      said = (said + data).slice(-20_000);
      const open = /open (http:\S+)/.exec(said);
      if (open) found(open[1]);
    };
    child.stdout.on("data", look);
    child.stderr.on("data", look);
    child.on("error", failed);
    child.on("exit", (code) => failed(new Error(`the service ended with ${code}:\n${said}`)));
    setTimeout(() => failed(new Error(`the service does not start:\n${said}`)), START_MS).unref();
  });
  return { child, address };
}

async function shoot(chromium, address, shot) {
  const context = await chromium.newContext({
    viewport: { width: shot.width, height: shot.height },
    deviceScaleFactor: shot.scale,
    colorScheme: shot.theme,
    permissions: ["camera", "microphone"],
  });
  try {
    const page = await context.newPage();
    await page.goto(`${address}/?size=640x360&fps=25&source=${clip ? "file" : "test"}`);
    if (clip) await page.setInputFiles("#video-file", clip);
    await page.waitForFunction(() => document.querySelector("#about").textContent !== "");
    await page.click("#start");
    const ready = (codes) => window.comfy.state === "running" && window.comfy.latency.samples.length > codes;
    await page.waitForFunction(ready, CODES, { timeout: START_MS }).catch(async (cause) => {
      const { state, errors, pictures } = await page.evaluate(() => window.comfy);
      throw new Error(`no codes at ${shot.name}: ${JSON.stringify({ state, errors, pictures })}`, { cause });
    });
    await page.waitForTimeout(SETTLE_MS);
    await page.evaluate(() => {
      document.activeElement?.blur();
      scrollTo(0, 0);
    });
    await page.mouse.move(shot.width - 1, shot.height - 1);
    const { p50, p95 } = await page.evaluate(() => window.comfy.latency);
    const session = await context.newCDPSession(page);
    const path = join(PICTURES, `page-${shot.name}.webp`);
    for (const quality of [90, 80, 70, 60]) {
      const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality });
      const bytes = Buffer.from(data, "base64");
      if (bytes.length > MOST_BYTES && quality > 60) continue;
      writeFileSync(path, bytes);
      console.log(`${path}: ${Math.round(bytes.length / 1024)} KiB; ${Math.round(p50)} ms median, ${Math.round(p95)} ms p95`);
      break;
    }
  } finally {
    await context.close();
  }
}

mkdirSync(PICTURES, { recursive: true });
const service = /^https?:/.test(program) ? undefined : serve();
let chromium;
try {
  const address = service ? await service.address : program.replace(/\/$/, "");
  chromium = await browser();
  for (const shot of SHOTS) await shoot(chromium, address, shot);
} finally {
  await chromium?.close();
  service?.child.removeAllListeners("exit");
  service?.child.kill("SIGTERM");
}
