// Figures of a browser beside the service, for docs/PERFORMANCE.md: what `make bench-web` runs.
//
//   node tests/browser/bench/run.mjs COMFYSTREAM PEERS [seconds=60] [minutes=10] [part=glass,start,sessions,lag]
//
// Writes docs/measurements/web.json, web.svg beside it, and the tables between the markers of docs/PERFORMANCE.md. A part
// that is not asked for keeps what web.json has of it.

import { execFile, execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { spread } from "../lib/percentiles.mjs";
import { plot } from "./plot.mjs";
import { Service } from "./service.mjs";
import { sessions } from "./sessions.mjs";
import { write } from "./tables.mjs";

const root = fileURLToPath(new URL("../../../", import.meta.url));
const [program, peers, ...rest] = process.argv.slice(2);
const { seconds = "60", minutes = "10", part = "glass,start,sessions,lag" } = Object.fromEntries(
  rest.map((pair) => pair.split("=")),
);
const parts = new Set(part.split(","));
const MODELS = ["--model", "builtin:invert", "--model", `${root}models/cartoon.onnx`];
/** A new browser each time: where a page's frames fall between two of the screen is decided when it starts. */
const VISITS = 4;

/** A scenario in a process of its own, as by hand. */
async function scenario(name, service, options) {
  const pairs = Object.entries(options).map(([key, value]) => `${key}=${value}`);
  const player = [`${root}tests/browser/run.mjs`, name, service.address, ...pairs];
  const { stdout } = await promisify(execFile)(process.execPath, player, { maxBuffer: 1 << 28 });
  const figures = JSON.parse(stdout.trim().split("\n").at(-1));
  console.error(`   ${name} ${pairs.join(" ")}`);
  return figures;
}

const mean = (values) => Math.round((values.reduce((sum, value) => sum + value, 0) / values.length) * 100) / 100;

/** The same keys, each the mean over all of these objects. */
const means = (all, of = (value) => value) =>
  Object.fromEntries(Object.keys(all[0]).map((key) => [key, mean(all.map((each) => of(each[key]) ?? 0))]));

async function glass() {
  const rows = [];
  for (const model of ["passthrough", "invert", "cartoon"]) {
    for (const codec of ["VP8", "H264"]) {
      const service = await Service.start(program, ...MODELS);
      const visits = [];
      const cores = [];
      for (let visit = 0; visit < VISITS; visit += 1) {
        const counted = service.cores();
        visits.push(await scenario("glass", service, { seconds: Number(seconds) / VISITS, model, codec, samples: 1 }));
        cores.push(counted());
      }
      await service.stop();
      const row = {
        model,
        codec,
        fps: mean(visits.map((each) => each.fps)),
        latency_ms: spread(visits.flatMap((each) => each.samples)),
        visits_p50_ms: visits.map((each) => each.latency_ms.p50),
        service_ms: means(visits.map((each) => each.service), (stage) => stage.mean),
        browser_ms: means(visits.map((each) => each.browser)),
        service_cores: means(cores),
      };
      rows.push(row);
      console.error(`   ${JSON.stringify(row)}`);
    }
  }
  return rows;
}

async function start() {
  const service = await Service.start(program, ...MODELS);
  const rows = [];
  for (const model of ["passthrough", "invert", "cartoon"]) {
    const { answer_ms, picture_ms } = await scenario("start", service, { model, times: 20 });
    rows.push({ model, answer_ms, picture_ms });
  }
  await service.stop();
  return rows;
}

async function load() {
  const service = await Service.start(program, "--max-sessions", "64");
  const rows = await sessions(service, peers, 10);
  await service.stop();
  return rows;
}

async function lag() {
  // Half the rate of 30 pictures a second, and no processor time, so that nothing but waiting is measured.
  const model = "builtin:null?base=66.7ms";
  const service = await Service.start(program, "--model", model);
  const { by_minute } = await scenario("lag", service, { model: "null", minutes, deadline: Number(minutes) * 60 + 120 });
  await service.stop();
  return { model, by_minute };
}

const file = `${root}docs/measurements/web.json`;
const figures = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : {};
const git = (...args) => execFileSync("git", args, { cwd: root, encoding: "utf8" }).trim();
figures.machine = {
  processor: cpus()[0].model,
  cores: cpus().length,
  browser: execFileSync(process.env.CHROMIUM ?? "chromium", ["--version"], {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "ignore"],
  }).trim(),
};
figures.size = "640x480";
figures.seconds = Number(seconds);
figures.commits ??= {};
for (const [name, measure] of Object.entries({ glass, start, sessions: load, lag })) {
  if (!parts.has(name)) continue;
  console.error(`== ${name}`);
  figures[name] = await measure();
  figures.commits[name] = git("rev-parse", "--short=12", "HEAD");
  writeFileSync(file, `${JSON.stringify(figures, null, 2)}\n`);
}
writeFileSync(`${root}docs/measurements/web.svg`, plot(figures));
write(`${root}docs/PERFORMANCE.md`, figures);
