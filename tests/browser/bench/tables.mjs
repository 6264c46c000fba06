// The tables of docs/PERFORMANCE.md.

import { readFileSync, writeFileSync } from "node:fs";

const NAMES = { passthrough: "none (pass-through)", invert: "`builtin:invert`", cartoon: "`models/cartoon.onnx`" };

const table = (heads, rows) =>
  [heads, heads.map((_, column) => (column ? "---:" : "---")), ...rows].map((cells) => `| ${cells.join(" | ")} |`).join("\n");

const ms = (value) => value.toFixed(value < 9.95 ? 1 : 0);
const share = (value) => `${(value * 100).toFixed(1)} %`;

function tables({ glass, start, sessions, lag, machine, seconds, commits }) {
  const most = sessions.filter((row) => row.carried).at(-1);
  return [
    `${machine.processor}, ${machine.cores} cores; ${machine.browser}, headless, on the same cores`,
    "",
    `Glass to glass, 640x480 at 30 pictures/s, ${seconds} s a row, in ms (commit ${commits.glass}):`,
    "",
    table(
      ["model, format", "p50", "p95", "p99", "most", "pictures/s", "in the service, mean", "in the browser, mean"],
      glass.map((row) => [
        `${NAMES[row.model]}, ${row.codec}`,
        ...["p50", "p95", "p99", "max"].map((key) => ms(row.latency_ms[key])),
        row.fps.toFixed(1),
        ms(row.service_ms.total),
        ms(row.browser_ms.encode + row.browser_ms.pace + row.browser_ms.wait + row.browser_ms.decode),
      ]),
    ),
    "",
    "Where a picture's time in the service goes, mean ms, and where the service's processor time goes, in cores:",
    "",
    table(
      [
        "model, format",
        ...["decode", "buffer", "model", "convert", "encode", "send"].map((stage) => `${stage}, ms`),
        ...["all", "receive", "decode", "model", "encode", "send", "other"].map((stage) => `${stage}, cores`),
      ],
      glass.map((row) => [
        `${NAMES[row.model]}, ${row.codec}`,
        ...["decode", "buffer", "model", "convert", "encode", "send"].map((stage) => row.service_ms[stage].toFixed(2)),
        ...["all", "receive", "decode", "model", "encode", "send", "other"].map((stage) =>
          row.service_cores[stage].toFixed(2),
        ),
      ]),
    ),
    "",
    `From pressing start, the model being loaded, in ms (${start[0].answer_ms.count} times each, commit ${commits.start}):`,
    "",
    table(
      ["model", "offer to answer, p50", "most", "to the first picture that came back, p50", "most"],
      start.map((row) => [
        NAMES[row.model],
        ...[row.answer_ms, row.picture_ms].flatMap((figures) => [ms(figures.p50), ms(figures.max)]),
      ]),
    ),
    "",
    `Sessions at once, pass-through, VP8 320x240 at 30 pictures/s each: ${most?.sessions ?? 0} before pictures are late (commit ${commits.sessions}).`,
    "",
    table(
      ["sessions", "pictures/s of the worst", "late", "time in the service, p95 of the worst, ms", "cores", "carried"],
      sessions.map((row) => [
        row.sessions,
        row.fps.toFixed(1),
        share(row.late),
        ms(row.service_p95_ms),
        row.service_cores.toFixed(2),
        row.carried ? "yes" : "**no**",
      ]),
    ),
    "",
    `A model at half the rate of its input, glass to glass by the minute, in ms (commit ${commits.lag}):`,
    "",
    table(
      ["minute", ...lag.by_minute.map((_, minute) => minute + 1)],
      ["p50", "p95", "max"].map((key) => [key, ...lag.by_minute.map((each) => ms(each[key]))]),
    ),
  ].join("\n");
}

export function write(file, figures) {
  const text = readFileSync(file, "utf8");
  const [begin, end] = ["<!-- begin web -->", "<!-- end web -->"];
  const at = text.indexOf(begin);
  if (at < 0 || text.indexOf(end) < at) throw new Error(`${file} has no ${begin} ... ${end}`);
  const rest = text.slice(text.indexOf(end));
  writeFileSync(file, `${text.slice(0, at)}${begin}\n${tables(figures)}\n${rest}`);
}
