// A service of its own for each part of a measurement, and what its threads cost.

import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";

/** Which thread does what, by the names that GStreamer and we give them; the first that fits. */
const STAGES = [
  ["receive", /^(nicesrc|queue|sctp|dtls|webrtcbin|rtpsession)/],
  ["decode", /^rtpjitterbuffer/],
  ["model", /^(frames-|comfyflight|comfybatch|comfyinfer|comfyunbatch)/],
  ["encode", /^video-in/],
  ["send", /^(rtpgccbwe|rtprtxsend)/],
  ["other", /./],
];

/** Processor time in hundredths of a second, out of a line of /proc. */
function ticks(stat) {
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return Number(fields[11]) + Number(fields[12]);
}

/** Between two looks at the threads: those of a session are gone when it has ended. */
const LOOK_MS = 100;

/** Programs that must not outlive this one. */
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

export function keep(child) {
  running.add(child);
  child.once("exit", () => running.delete(child));
  return child;
}

export class Service {
  #process;
  #log = "";

  static async start(program, ...options) {
    const service = new Service();
    const child = keep(
      spawn(program, ["serve", "--listen", "127.0.0.1:0", ...options], { stdio: ["ignore", "pipe", "pipe"] }),
    );
    service.#process = child;
    child.stderr.on("data", (text) => (service.#log += text));
    for await (const line of createInterface({ input: child.stdout })) {
      if (line.startsWith("open ")) {
        service.address = line.slice(5);
        return service;
      }
    }
    throw new Error(`${program} did not start:\n${service.#log}`);
  }

  /**
   * Counts while pictures are encoded; what it gives ends that, and tells cores in use, of the whole and by stage.
   */
  cores() {
    let first;
    let last;
    const look = () => {
      const threads = this.#threads();
      if (![...threads.values()].some(({ name }) => name.startsWith("video-in"))) return;
      last = { at: performance.now(), threads };
      first ??= last;
    };
    const timer = setInterval(look, LOOK_MS);
    return () => {
      clearInterval(timer);
      const spent = {};
      for (const [id, { name, spent: after }] of last.threads) {
        const [stage] = STAGES.find(([, names]) => names.test(name));
        spent[stage] = (spent[stage] ?? 0) + after - (first.threads.get(id)?.spent ?? 0);
      }
      const seconds = (last.at - first.at) / 1000;
      const share = (each) => Math.round((each / seconds) * 10) / 1000;
      const all = share(Object.values(spent).reduce((sum, each) => sum + each, 0));
      return { all, ...Object.fromEntries(STAGES.map(([stage]) => [stage, share(spent[stage] ?? 0)])) };
    };
  }

  #threads() {
    const folder = `/proc/${this.#process.pid}/task`;
    const threads = new Map();
    for (const id of readdirSync(folder)) {
      try {
        const stat = readFileSync(`${folder}/${id}/stat`, "utf8");
        const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
        threads.set(id, { name, spent: ticks(stat) });
      } catch {
        // It has ended since it was listed.
      }
    }
    return threads;
  }

  stop() {
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill("SIGTERM");
    return gone;
  }
}
