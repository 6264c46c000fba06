// The inputs of a loaded workflow: the prompt, a strength, a seed, to be changed while it runs. The page edits its own
// copy of the workflow and sends all of it, as ComfyStream's clients do.

import { isRecord, type NodeInfo, type Workflow } from "../protocol.ts";
import { byId, h } from "./dom.ts";

/** Typing sends nothing until it rests: every update may cost the model a new text encoding. */
const REST_MS = 300;

type Changed = (workflows: Workflow[]) => void;

export class NodeFields {
  readonly #box = byId("node-fields");
  readonly #details = byId("nodes");
  readonly #changed: Changed;
  #workflows: Workflow[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(changed: Changed) {
    this.#changed = changed;
  }

  /** `info` is `nodes_info` where the service has told it: it knows limits and choices that a workflow does not hold. */
  show(workflows: Workflow[], info: Record<string, Record<string, NodeInfo>> = {}): void {
    this.#workflows = workflows;
    const groups: HTMLElement[] = [];
    workflows.forEach((workflow, at) => {
      for (const [id, node] of Object.entries(workflow)) {
        if (!isRecord(node) || !isRecord(node["inputs"]) || typeof node["class_type"] !== "string") continue;
        const fields = Object.entries(node["inputs"])
          // A list is a link to another node.
          .filter(([, value]) => ["string", "number", "boolean"].includes(typeof value))
          .map(([name, value]) =>
            this.#field(at, id, name, value as string | number | boolean, info[String(at)]?.[id]),
          );
        if (fields.length > 0)
          groups.push(h("fieldset", {}, h("legend", {}, `${node["class_type"]} ${id}`), ...fields));
      }
    });
    this.#box.replaceChildren(...groups);
    this.#details.hidden = groups.length === 0;
  }

  #field(
    at: number,
    node: string,
    name: string,
    value: string | number | boolean,
    info: NodeInfo | undefined,
  ): HTMLElement {
    const id = `node-${at}-${node}-${name}`;
    const known = info?.inputs[name];
    const choices = Array.isArray(known?.value)
      ? known.value.filter((each): each is string => typeof each === "string")
      : [];
    let control: HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement;
    if (typeof value === "boolean") {
      control = h("select", { id }, new Option("yes", "true"), new Option("no", "false"));
    } else if (typeof value === "number") {
      control = h("input", { id, type: "number", step: String(known?.step ?? "any") });
      if (known?.min !== undefined) control.min = String(known.min);
      if (known?.max !== undefined) control.max = String(known.max);
    } else if (choices.length > 0) {
      control = h("select", { id }, ...[...new Set([value, ...choices])].map((each) => new Option(each)));
    } else if (value.length > 24 || name === "text" || name === "prompt") {
      control = h("textarea", { id, rows: "3" });
    } else {
      control = h("input", { id, type: "text" });
    }
    control.value = String(value);
    control.addEventListener("input", () => {
      const now =
        typeof value === "number"
          ? Number(control.value)
          : typeof value === "boolean"
            ? control.value === "true"
            : control.value;
      if (typeof now === "number" && (control.value === "" || !Number.isFinite(now))) return;
      this.#set(at, node, name, now);
    });
    const wide = control instanceof HTMLTextAreaElement ? "field stacked" : "field";
    return h("div", { class: wide }, h("label", { for: id, title: name }, name), control);
  }

  #set(at: number, id: string, name: string, value: string | number | boolean): void {
    const node = this.#workflows[at]?.[id];
    if (!isRecord(node) || !isRecord(node["inputs"])) return;
    node["inputs"][name] = value;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#changed(this.#workflows), REST_MS);
  }
}
