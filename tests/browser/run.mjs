// A person with a browser: runs one scenario against the pages of a running service.
//
//   node tests/browser/run.mjs SCENARIO BASE_URL [name=value]...
//
// Prints one JSON object, {"scenario","ok":true,...figures} or {"scenario","ok":false,"error",...what the pages say of
// themselves}, and exits 0 or 1. A scenario that needs something done to the service first prints {"event":"..."} on a
// line of its own, and goes on with the next line of its input. 2 is for what is missing on the machine.
// `deadline=SECONDS` (90) ends whatever takes longer.

import { readdirSync } from "node:fs";
import { Browsers, Missing } from "./lib/browser.mjs";
import { Lines } from "./lib/lines.mjs";
import { Service } from "./lib/service.mjs";

const folder = new URL("./scenarios/", import.meta.url);
const [scenario, base, ...rest] = process.argv.slice(2);
const names = readdirSync(folder).map((name) => name.replace(".mjs", ""));
if (!names.includes(scenario) || !base) {
  console.error(`usage: run.mjs SCENARIO BASE_URL [name=value]...\nscenarios: ${names.join(", ")}`);
  process.exit(2);
}
const options = Object.fromEntries(rest.map((pair) => [pair.split("=", 1)[0], pair.slice(pair.indexOf("=") + 1)]));

const browsers = new Browsers();
const lines = new Lines(process.stdin);
let status = 1;

async function attempt() {
  const { default: play } = await import(new URL(`${scenario}.mjs`, folder));
  return play({ browsers, service: new Service(base), options, lines });
}

/** Leaving before a pipe has taken all of it would cut it off. */
const tell = (result) => new Promise((resolve) => process.stdout.write(`${JSON.stringify(result)}\n`, resolve));

function tooLong() {
  const seconds = Number(options.deadline ?? 90);
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error(`not done after ${seconds} s`)), seconds * 1000).unref();
  });
}

try {
  const figures = await Promise.race([attempt(), tooLong()]);
  await tell({ scenario, ok: true, ...figures, complaints: browsers.complaints() });
  status = 0;
} catch (error) {
  if (error instanceof Missing) {
    console.error(error.message);
    status = 2;
  } else {
    const pages = await browsers.describe();
    await tell({ scenario, ok: false, error: error.stack ?? String(error), pages });
  }
} finally {
  await browsers.close();
  process.exit(status);
}
