// Errors and news in plain words, at the edge of the page, until they are dismissed.

import { ApiError } from "../api.ts";
import { ControlError } from "../control.ts";
import { sentence, type ApiErrorBody } from "../protocol.ts";
import { SourceError } from "../source/open.ts";
import { byId, h, text } from "./dom.ts";

export interface Action {
  label: string;
  run: () => void;
}

export function actionButton(action: Action): HTMLButtonElement {
  const button = h("button", { type: "button" }, action.label);
  button.addEventListener("click", action.run);
  return button;
}

const NEWS_MS = 6000;
const MOST = 4;

export function errorBody(error: unknown): ApiErrorBody {
  if (error instanceof ApiError || error instanceof ControlError) return error.body;
  if (error instanceof SourceError) return { code: error.code, message: error.message, hint: error.hint };
  return { code: "page", message: error instanceof Error ? error.message : String(error) };
}

export class Notices {
  readonly #region = byId("notices");
  /** All errors since the page was loaded, for tests and for the curious in the console. */
  readonly errors: ApiErrorBody[] = [];

  /** For errors that are shown elsewhere. */
  note(error: unknown): void {
    this.errors.push(errorBody(error));
  }

  error(error: unknown, ...actions: Action[]): void {
    const body = errorBody(error);
    this.note(error);
    const before = this.#find(body);
    if (before) {
      const count = Number(before.dataset["count"] ?? 1) + 1;
      before.dataset["count"] = String(count);
      const times = before.querySelector("small");
      if (times) text(times, ` ${count}×`);
      return;
    }
    const nodes = (body.nodes ?? []).filter((node) => node.why);
    // Mostly the same for all: then it is said once.
    const lines = [...new Set(nodes.map((node) => node.why))].map((why) => {
      const names = nodes.filter((node) => node.why === why).map((node) => `${node.class_type} (${node.id})`);
      return h("li", {}, `${names.join(", ")}: ${why}`);
    });
    const title = nodes.length > 0 ? "This workflow does not run here" : sentence(body.message);
    this.#show(
      "error",
      body,
      title,
      actions,
      lines.length > 0 ? h("ul", {}, ...lines) : undefined,
    );
  }

  news(message: string, hint?: string): void {
    const body: ApiErrorBody = { code: "news", message, ...(hint ? { hint } : {}) };
    this.#find(body)?.remove();
    const notice = this.#show("news", body, message, []);
    setTimeout(() => notice.remove(), NEWS_MS);
  }

  clear(): void {
    this.#region.replaceChildren();
  }

  #find(body: ApiErrorBody): HTMLElement | undefined {
    const key = `${body.code} ${body.message}`;
    return [...this.#region.children].find(
      (each): each is HTMLElement => each instanceof HTMLElement && each.dataset["key"] === key,
    );
  }

  #show(
    kind: string,
    body: ApiErrorBody,
    title: string,
    actions: Action[],
    ...more: (HTMLElement | undefined)[]
  ): HTMLElement {
    const dismiss = h("button", { type: "button", class: "dismiss", "aria-label": "Dismiss" }, "✕");
    const buttons = actions.map(actionButton);
    for (const button of buttons) button.addEventListener("click", () => notice.remove());
    const notice = h(
      "div",
      {
        class: `notice ${kind}`,
        "data-key": `${body.code} ${body.message}`,
        "data-code": body.code,
        role: kind === "error" ? "alert" : "status",
      },
      h("b", {}, title, h("small", {})),
      dismiss,
      ...more,
      body.hint ? h("p", {}, sentence(body.hint)) : undefined,
      buttons.length > 0 ? h("div", { class: "acts" }, ...buttons) : undefined,
    );
    dismiss.addEventListener("click", () => notice.remove());
    this.#region.append(notice);
    while (this.#region.children.length > MOST) this.#region.firstElementChild?.remove();
    return notice;
  }
}
