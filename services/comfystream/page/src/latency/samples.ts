// The delays measured of late and their percentiles. Percentiles are of what was measured, never interpolated or smoothed.

export function percentile(sorted: readonly number[], share: number): number | undefined {
  if (sorted.length === 0) return undefined;
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

export class Samples {
  readonly #keptMs: number;
  #all: { at: number; value: number }[] = [];

  constructor(keptMs: number) {
    this.#keptMs = keptMs;
  }

  push(value: number): void {
    this.#all.push({ at: performance.now(), value });
  }

  clear(): void {
    this.#all = [];
  }

  /** Newest last. By time and not by number: at few frames a second a number of them reaches far back. */
  get values(): readonly number[] {
    const since = performance.now() - this.#keptMs;
    this.#all = this.#all.filter((each) => each.at >= since);
    return this.#all.map((each) => each.value);
  }

  get p50(): number | undefined {
    return percentile(
      [...this.values].sort((a, b) => a - b),
      0.5,
    );
  }

  get p95(): number | undefined {
    return percentile(
      [...this.values].sort((a, b) => a - b),
      0.95,
    );
  }
}
