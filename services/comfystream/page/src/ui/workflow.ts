// The place for a ComfyUI workflow's file, and the fields of what is in it.

import { asWorkflows, isRecord, type NodeInfo, type Workflow } from "../protocol.ts";
import { SourceError } from "../source/open.ts";
import { byId, text } from "./dom.ts";
import { NodeFields } from "./nodes.ts";

interface Held {
  value: Workflow[] | undefined;
  name: string;
}

/** Nodes of either form: what ComfyUI exports for programs, or what it saves for itself. */
function count(workflow: Workflow): number {
  const { nodes } = workflow;
  if (Array.isArray(nodes)) return nodes.length;
  return Object.values(workflow).filter((node) => isRecord(node) && "class_type" in node).length;
}

export class WorkflowBox {
  readonly #nodes: NodeFields;
  value: Workflow[] | undefined;
  #name = "";

  constructor(edited: (workflows: Workflow[]) => void) {
    this.#nodes = new NodeFields(edited);
  }

  async read(file: File): Promise<Workflow[]> {
    let workflows: Workflow[] | undefined;
    try {
      workflows = asWorkflows(JSON.parse(await file.text()));
    } catch {
      workflows = undefined;
    }
    if (!workflows) {
      throw new SourceError(
        "bad_workflow",
        `${file.name} is not a ComfyUI workflow`,
        "Save one in ComfyUI with Workflow > Export (API) and drop that JSON file here.",
      );
    }
    this.#show(workflows, file.name);
    return workflows;
  }

  /** What is in it, to be put back if what comes instead is refused. */
  get held(): Held {
    return { value: this.value, name: this.#name };
  }

  hold({ value, name }: Held): void {
    this.#show(value, name);
  }

  clear(): void {
    if (this.value) this.#show(undefined, "");
  }

  explain(info: Record<string, Record<string, NodeInfo>>): void {
    if (this.value) this.#nodes.show(this.value, info);
  }

  #show(workflows: Workflow[] | undefined, name: string): void {
    this.value = workflows;
    this.#name = name;
    text(byId("workflow-name"), workflows ? name : "ComfyUI workflow");
    const nodes = workflows?.reduce((sum, each) => sum + count(each), 0) ?? 0;
    text(byId("workflow-note"), workflows ? `${nodes} ${nodes === 1 ? "node" : "nodes"}; replaces the model above` : "Choose or drop a JSON file");
    byId("workflow-drop").classList.toggle("full", workflows !== undefined);
    byId("workflow-clear").hidden = workflows === undefined;
    this.#nodes.show(workflows ?? []);
  }
}
