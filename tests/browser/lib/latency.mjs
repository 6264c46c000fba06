// Delays that the page reads off the returned pictures, from painting to presenting.

import { until } from "./live.mjs";
import { spread } from "./percentiles.mjs";

/**
 * Keeps each delay for so many seconds. The page has the last few hundred only, so it is asked more often than that,
 * and what it says again is left out.
 */
export async function measure(page, seconds) {
  await until(page, "the page reads the time off the pictures", () => window.comfy.latency.samples.length > 30);
  const samples = await page.evaluate(
    (ms) =>
      new Promise((resolve) => {
        let before = [...window.comfy.latency.samples];
        const all = [];
        const begin = performance.now();
        const look = () => {
          const now = window.comfy.latency.samples;
          const known = (fresh) => now.slice(0, now.length - fresh).every((value, at, kept) =>
            value === before[before.length - kept.length + at]);
          let fresh = Math.max(0, now.length - before.length);
          while (fresh < now.length && !known(fresh)) fresh += 1;
          all.push(...now.slice(now.length - fresh));
          before = [...now];
          if (performance.now() - begin < ms) return;
          clearInterval(timer);
          resolve({ all, seconds: (performance.now() - begin) / 1000 });
        };
        const timer = setInterval(look, 500);
      }),
    seconds * 1000,
  );
  const { all } = samples;
  return { ...spread(all), fps: Math.round((all.length / samples.seconds) * 10) / 10, samples: all };
}
