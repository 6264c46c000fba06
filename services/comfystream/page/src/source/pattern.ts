// Test patterns. Each has motion, hard and soft edges, colours and a running time, so that one look tells whether what
// comes back is right, smooth and fresh.

import type { Draw } from "./canvas.ts";

export const PATTERNS = ["bars", "orbit"] as const;
export type Pattern = (typeof PATTERNS)[number];

const BARS = ["#c0c0c0", "#c0c000", "#00c0c0", "#00c000", "#c000c0", "#c00000", "#0000c0"];

function clock(now: number): string {
  const two = (value: number): string => String(Math.floor(value)).padStart(2, "0");
  return `${two((now / 60_000) % 60)}:${two((now / 1000) % 60)}.${two((now / 10) % 100)}`;
}

function caption(context: CanvasRenderingContext2D, now: number, frame: number): void {
  const { width, height } = context.canvas;
  const size = Math.round(height / 12);
  context.font = `600 ${size}px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = "#000";
  context.fillRect(width / 2 - size * 3.2, height * 0.78 - size * 0.8, size * 6.4, size * 1.6);
  context.fillStyle = "#fff";
  context.fillText(clock(now), width / 2, height * 0.78 + size * 0.06);
  context.font = `${Math.round(size * 0.42)}px ui-monospace, Menlo, Consolas, monospace`;
  context.textAlign = "left";
  context.fillText(String(frame).padStart(6, "0"), size * 0.5, height * 0.91);
}

const bars: Draw = (context, now, frame) => {
  const { width, height } = context.canvas;
  const top = height * 0.66;
  BARS.forEach((colour, at) => {
    context.fillStyle = colour;
    context.fillRect(Math.floor((at * width) / BARS.length), 0, Math.ceil(width / BARS.length), top);
  });
  const ramp = context.createLinearGradient(0, 0, width, 0);
  ramp.addColorStop(0, "#000");
  ramp.addColorStop(1, "#fff");
  context.fillStyle = ramp;
  context.fillRect(0, top, width, height * 0.04);
  context.fillStyle = "#131313";
  context.fillRect(0, height * 0.7, width, height * 0.3);
  // A disc on a steady path: uneven motion is seen at once, a number that jumps is not.
  const turn = (now / 2400) * Math.PI * 2;
  const radius = height * 0.13;
  const x = width / 2 + Math.cos(turn) * width * 0.32;
  const y = top / 2 + Math.sin(turn * 2) * top * 0.22;
  context.beginPath();
  context.arc(x, y, radius, 0, Math.PI * 2);
  context.fillStyle = "#f4f4f0";
  context.fill();
  context.beginPath();
  context.moveTo(x, y);
  context.arc(x, y, radius * 0.86, -Math.PI / 2, -Math.PI / 2 + ((now % 1000) / 1000) * Math.PI * 2);
  context.fillStyle = "#d8281e";
  context.fill();
  caption(context, now, frame);
  return true;
};

const orbit: Draw = (context, now, frame) => {
  const { width, height } = context.canvas;
  const sky = context.createLinearGradient(0, 0, 0, height);
  sky.addColorStop(0, "#1d3557");
  sky.addColorStop(0.6, "#e09f5a");
  sky.addColorStop(1, "#23251f");
  context.fillStyle = sky;
  context.fillRect(0, 0, width, height);
  const balls = 5;
  for (let ball = 0; ball < balls; ball += 1) {
    const turn = now / (1400 + ball * 420) + (ball * Math.PI * 2) / balls;
    const depth = 0.6 + 0.4 * Math.sin(turn);
    const x = width / 2 + Math.cos(turn) * width * 0.34;
    const y = height * 0.45 + Math.sin(turn) * height * 0.16;
    const radius = height * (0.05 + 0.08 * depth);
    const shade = context.createRadialGradient(x - radius * 0.35, y - radius * 0.35, radius * 0.1, x, y, radius);
    shade.addColorStop(0, "#fff");
    shade.addColorStop(0.35, `hsl(${ball * 68} 70% 58%)`);
    shade.addColorStop(1, `hsl(${ball * 68} 70% 18%)`);
    context.beginPath();
    context.arc(x, y, radius, 0, Math.PI * 2);
    context.fillStyle = shade;
    context.fill();
  }
  caption(context, now, frame);
  return true;
};

export const draw: Record<Pattern, Draw> = { bars, orbit };
