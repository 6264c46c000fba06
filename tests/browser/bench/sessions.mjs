// Sessions at 30 frames a second, one after the other, until frames are late: not all of them come back, or one in
// twenty comes more than a frame's time after its turn, or is in the service for longer than that.

import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { setTimeout } from "node:timers/promises";
import { keep } from "./service.mjs";

const MOST = 48;
/** How many more each time: fine at first, then by about a fifth. */
const next = (count) => count + Math.max(1, Math.round(count / 5));

/** The peers' own program; the lines that it answers come in the order of what it is asked. */
class Peers {
  #process;
  #lines;

  constructor(program) {
    this.#process = keep(spawn(program, [], { stdio: ["pipe", "pipe", "inherit"] }));
    this.#lines = createInterface({ input: this.#process.stdout })[Symbol.asyncIterator]();
  }

  tell(order) {
    this.#process.stdin.write(`${JSON.stringify(order)}\n`);
  }

  async answer() {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("the peers' program has ended");
    return JSON.parse(value);
  }

  /** What came back since the last time. */
  measure() {
    this.tell({ measure: true });
    return this.answer();
  }

  end() {
    const gone = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.stdin.end();
    return gone;
  }
}

async function post(address, sdp) {
  const response = await fetch(`${address}/offer`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ sdp, type: "offer" }),
  });
  if (!response.ok) throw new Error(`an offer is answered ${response.status}: ${await response.text()}`);
  return (await response.json()).sdp;
}

const get = async (url) => (await fetch(url)).json();

/** How long each session's pictures were in the service lately. */
async function inService(address) {
  const { sessions } = await get(`${address}/api/sessions`);
  return Promise.all(sessions.map(async ({ id }) => (await get(`${address}/stream/${id}/stats`)).stats.stages.total));
}

export async function sessions(service, program, seconds) {
  const peers = new Peers(program);
  const rows = [];
  let count = 0;
  for (let wanted = 1; wanted <= MOST; wanted = next(wanted)) {
    peers.tell({ open: wanted - count });
    for (; count < wanted; count += 1) {
      const { peer, sdp } = await peers.answer();
      peers.tell({ peer, answer: await post(service.address, sdp) });
    }
    // Until key frames and connections are over.
    await setTimeout(2000);
    await peers.measure();
    const cores = service.cores();
    await setTimeout(seconds * 1000);
    const { peers: came } = await peers.measure();
    const totals = await inService(service.address);
    const row = {
      sessions: wanted,
      fps: Math.min(...came.map((each) => each.fps)),
      late: came.reduce((sum, each) => sum + each.late, 0) / came.length,
      service_p95_ms: Math.max(...totals.map((total) => total.p95)),
      service_cores: cores().all,
    };
    row.carried = row.fps >= 29.4 && row.late <= 0.05 && row.service_p95_ms <= 1000 / 30;
    rows.push(row);
    console.error(`   ${JSON.stringify(row)}`);
    if (!row.carried) break;
  }
  await peers.end();
  return rows;
}
