// The place for a ComfyUI workflow's file, and the fields of what is in it.

import { asWorkflows, type NodeInfo, type Workflow } from "../protocol.ts";
import { SourceError } from "../source/open.ts";
import { byId, text } from "./dom.ts";
import { NodeFields } from "./nodes.ts";

export class WorkflowBox {
  readonly #nodes: NodeFields;
  value: Workflow[] | undefined;

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

  clear(): void {
    if (this.value) this.#show(undefined, "");
  }

  explain(info: Record<string, Record<string, NodeInfo>>): void {
    if (this.value) this.#nodes.show(this.value, info);
  }

  #show(workflows: Workflow[] | undefined, name: string): void {
    this.value = workflows;
    text(byId("workflow-name"), workflows ? name : "ComfyUI workflow");
    const count = workflows?.reduce((sum, each) => sum + Object.keys(each).length, 0) ?? 0;
    text(byId("workflow-note"), workflows ? `${count} nodes; replaces the model above` : "Choose or drop a JSON file");
    byId("workflow-drop").classList.toggle("full", workflows !== undefined);
    byId("workflow-clear").hidden = workflows === undefined;
    this.#nodes.show(workflows ?? []);
  }
}
