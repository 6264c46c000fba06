// One look: how late is a picture, and does that grow?

const [WIDTH, TOP, BOTTOM, PANEL] = [960, 96, 380, 370];
const [BLUE, LIGHT, GREY] = ["#2b6cb0", "#90cdf4", "#555"];

const text = (x, y, size, words, more = "") => `<text x='${x}' y='${y}' font-size='${size}' ${more}>${words}</text>`;

/** A round step that cuts the most into at most five. */
function stepOf(most) {
  const power = 10 ** Math.floor(Math.log10(most / 5));
  return [1, 2, 2.5, 5, 10].find((factor) => factor * power >= most / 5) * power;
}

/** Title, legend and lines of a panel, and where a value is in it. */
function frame(left, title, legend, most) {
  const step = stepOf(most * 1.08);
  const end = Math.ceil((most * 1.08) / step) * step;
  const y = (value) => BOTTOM - ((BOTTOM - TOP) * value) / end;
  const parts = [text(left, 64, 17, title, "font-weight='bold'")];
  legend.forEach(([name, colour], index) => {
    const x = left + 90 * index;
    parts.push(`<rect x='${x}' y='74' width='12' height='12' fill='${colour}'/>`, text(x + 18, 84.5, 13, name));
  });
  for (let value = 0; value <= end * 1.0001; value += step) {
    const at = y(value).toFixed(1);
    parts.push(
      `<line x1='${left}' x2='${left + PANEL}' y1='${at}' y2='${at}' stroke='#ddd'/>`,
      text(left - 6, Number(at) + 4, 12, value, `text-anchor='end' fill='${GREY}'`),
    );
  }
  return { y, parts };
}

function bars(rows) {
  const left = 60;
  const legend = [["p50", BLUE], ["p95", LIGHT]];
  const most = Math.max(...rows.map((row) => row.latency_ms.p95));
  const { y, parts } = frame(left, "Glass to glass, ms", legend, most);
  const slot = PANEL / rows.length;
  rows.forEach(({ model, codec, latency_ms }, index) => {
    const x = left + index * slot;
    [[latency_ms.p50, BLUE], [latency_ms.p95, LIGHT]].forEach(([value, colour], side) => {
      const at = x + slot * (0.14 + 0.36 * side);
      parts.push(
        `<rect x='${at.toFixed(1)}' y='${y(value).toFixed(1)}' width='${(slot * 0.34).toFixed(1)}' height='${(BOTTOM - y(value)).toFixed(1)}' fill='${colour}'/>`,
        text((at + slot * 0.17).toFixed(1), (y(value) - 4).toFixed(1), 11, value.toFixed(0), "text-anchor='middle'"),
      );
    });
    parts.push(
      text((x + slot / 2).toFixed(1), BOTTOM + 18, 12, codec, "text-anchor='middle'"),
      ...(index % 2 ? [] : [text((x + slot).toFixed(1), BOTTOM + 38, 13, model, "text-anchor='middle'")]),
    );
  });
  return parts;
}

function lines({ by_minute }) {
  const left = 540;
  const most = Math.max(...by_minute.map((minute) => minute.p95));
  const { y, parts } = frame(left, "A model at half the rate, ms", [["p50", BLUE], ["p95", LIGHT]], most);
  const x = (minute) => left + (PANEL * (minute + 0.5)) / by_minute.length;
  for (const [key, colour] of [["p95", LIGHT], ["p50", BLUE]]) {
    const points = by_minute.map((each, minute) => `${x(minute).toFixed(1)},${y(each[key]).toFixed(1)}`).join(" ");
    parts.push(`<polyline points='${points}' fill='none' stroke='${colour}' stroke-width='3'/>`);
  }
  by_minute.forEach((_, minute) => parts.push(text(x(minute).toFixed(1), BOTTOM + 18, 12, minute + 1, "text-anchor='middle'")));
  parts.push(text(left + PANEL / 2, BOTTOM + 38, 13, "minute", "text-anchor='middle'"));
  return parts;
}

export function plot({ glass, lag }) {
  return [
    `<svg xmlns='http://www.w3.org/2000/svg' width='${WIDTH}' height='440' viewBox='0 0 ${WIDTH} 440' font-family='DejaVu Sans, Verdana, sans-serif'>`,
    `<rect width='${WIDTH}' height='440' fill='white'/>`,
    text(60, 32, 19, "A picture's way through the service and back", "font-weight='bold'"),
    ...bars(glass),
    ...lines(lag),
    "</svg>",
    "",
  ].join("\n");
}
