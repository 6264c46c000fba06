// The control channel: requests that wait for their answer, and what the service says unasked.

import { ANSWER, asControlMessage, type ApiErrorBody, type ControlMessage, type ControlRequest } from "./protocol.ts";

/** Long enough for a workflow to be looked at; its model loads afterwards. */
const ANSWER_MS = 10_000;
/** After a refusal in ComfyStream's words, which has no room for more, the service sends an error that says it all. */
const MORE_MS = 150;

export class ControlError extends Error {
  readonly body: ApiErrorBody;
  constructor(body: ApiErrorBody) {
    super(body.message);
    this.name = "ControlError";
    this.body = body;
  }
}

interface Waiting {
  request: ControlRequest["type"];
  resolve: (message: ControlMessage) => void;
  reject: (error: ControlError) => void;
  timer: ReturnType<typeof setTimeout>;
}

export class Control {
  readonly #channel: RTCDataChannel;
  readonly #pushed: (message: ControlMessage) => void;
  #waiting: Waiting[] = [];

  constructor(channel: RTCDataChannel, pushed: (message: ControlMessage) => void, opened: () => void) {
    this.#channel = channel;
    this.#pushed = pushed;
    channel.addEventListener("message", (event: MessageEvent<unknown>) => this.#take(event.data));
    channel.addEventListener("open", opened);
    channel.addEventListener("close", () => this.#giveUp());
  }

  get open(): boolean {
    return this.#channel.readyState === "open";
  }

  /** Answers come in the order of the requests of one type, so the oldest that waits is the one meant. */
  request(message: ControlRequest): Promise<ControlMessage> {
    if (!this.open) {
      return Promise.reject(
        new ControlError({ code: "not_connected", message: "There is no connection to the service" }),
      );
    }
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#drop(waiting);
        reject(new ControlError({ code: "no_answer", message: `The service did not answer ${message.type}` }));
      }, ANSWER_MS);
      const waiting: Waiting = { request: message.type, resolve, reject, timer };
      this.#waiting.push(waiting);
      this.#channel.send(JSON.stringify(message));
    });
  }

  #take(data: unknown): void {
    const message = asControlMessage(data);
    if (!message) return;
    if (message.type === "error") {
      const asked = this.#waiting.find((each) => each.request === message.request);
      if (!asked) return this.#pushed(message);
      this.#drop(asked);
      return asked.reject(new ControlError(message.error));
    }
    const asked = this.#waiting.find((each) => ANSWER[each.request] === message.type);
    if (!asked) return this.#pushed(message);
    if ("success" in message && message.success === false) {
      const why = "error" in message && message.error ? message.error : `The service refused ${asked.request}`;
      clearTimeout(asked.timer);
      asked.timer = setTimeout(() => {
        this.#drop(asked);
        asked.reject(new ControlError({ code: "refused", message: why }));
      }, MORE_MS);
      return;
    }
    this.#drop(asked);
    asked.resolve(message);
    // The first figures come as the answer; who shows figures need not know that.
    if (message.type === "comfy:stats") this.#pushed(message);
  }

  #drop(waiting: Waiting): void {
    clearTimeout(waiting.timer);
    this.#waiting = this.#waiting.filter((each) => each !== waiting);
  }

  #giveUp(): void {
    for (const waiting of [...this.#waiting]) {
      this.#drop(waiting);
      waiting.reject(new ControlError({ code: "closed", message: "The connection ended before the service answered" }));
    }
  }
}
