// The service as its HTTP API shows it.

/** Between two looks at what happens beside requests. */
const LOOK_MS = 50;

export class Service {
  constructor(base) {
    this.base = base.replace(/\/+$/, "");
  }

  page(path, query = {}) {
    const url = new URL(this.base + path);
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
    return url.href;
  }

  async get(path) {
    const response = await fetch(this.base + path);
    if (!response.ok && response.status !== 503) throw new Error(`GET ${path} answers ${response.status}`);
    return response.json();
  }

  async sessions() {
    return (await this.get("/api/sessions")).sessions;
  }

  /** Looks until something is so, and gives how long that took, in seconds. */
  async until(what, seconds, look) {
    const begin = performance.now();
    const passed = () => (performance.now() - begin) / 1000;
    for (;;) {
      if (await look()) return passed();
      if (passed() > seconds) throw new Error(`${what}: not within ${seconds} s`);
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  /** Every model is loaded: a session before that shows the loading, which is another scenario's matter. */
  ready() {
    return this.until("the service is ready", 30, async () => (await this.get("/health")).status === "ready");
  }

  /** Nobody is connected any more, so that the next one begins with an idle service. */
  empty(seconds = 20) {
    return this.until("no sessions are left", seconds, async () => (await this.sessions()).length === 0);
  }
}
