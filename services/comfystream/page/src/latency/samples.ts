// The last measured delays and their percentiles. Percentiles are of what was measured, never interpolated or smoothed.

export function percentile(sorted: readonly number[], share: number): number | undefined {
  if (sorted.length === 0) return undefined;
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
}

export class Samples {
  readonly #limit: number;
  #values: number[] = [];

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(value: number): void {
    this.#values.push(value);
    if (this.#values.length > this.#limit) this.#values.shift();
  }

  clear(): void {
    this.#values = [];
  }

  get values(): readonly number[] {
    return this.#values;
  }

  get p50(): number | undefined {
    return percentile(
      [...this.#values].sort((a, b) => a - b),
      0.5,
    );
  }

  get p95(): number | undefined {
    return percentile(
      [...this.#values].sort((a, b) => a - b),
      0.95,
    );
  }
}
