// Errors and news in plain words, at the edge of the page, until they are dismissed.

import { ApiError } from "../api.ts";
import { ControlError } from "../control.ts";
import type { ApiErrorBody } from "../protocol.ts";
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
    const same = [...this.#region.children].find(
      (each) => (each as HTMLElement).dataset["key"] === `${body.code} ${body.message}`,
    );
    if (same) {
      const count = Number((same as HTMLElement).dataset["count"] ?? 1) + 1;
      (same as HTMLElement).dataset["count"] = String(count);
      const title = same.querySelector("b");
      if (title) text(title, `${body.message} (${count}×)`);
      return;
    }
    const nodes = (body.nodes ?? []).map((node) => h("li", {}, `${node.class_type} (${node.id}): ${node.why}`));
    this.#show("error", body, actions, nodes.length > 0 ? h("ul", {}, ...nodes) : undefined);
  }

  news(message: string, hint?: string): void {
    const notice = this.#show("news", { code: "news", message, ...(hint ? { hint } : {}) }, []);
    setTimeout(() => notice.remove(), NEWS_MS);
  }

  clear(): void {
    this.#region.replaceChildren();
  }

  #show(kind: string, body: ApiErrorBody, actions: Action[], more?: HTMLElement): HTMLElement {
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
      h("b", {}, body.message),
      dismiss,
      body.hint ? h("p", {}, body.hint) : undefined,
      more,
      buttons.length > 0 ? h("div", { class: "acts" }, ...buttons) : undefined,
    );
    dismiss.addEventListener("click", () => notice.remove());
    this.#region.append(notice);
    while (this.#region.children.length > MOST) this.#region.firstElementChild?.remove();
    return notice;
  }
}
