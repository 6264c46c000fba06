// Keys, and the dialog that lists them.

import { byId, h } from "./dom.ts";

export interface Key {
  key: string;
  does: string;
  run: () => void;
}

export function listenForKeys(keys: Key[], obsAddress: () => string): void {
  const help = byId<HTMLDialogElement>("help");
  const obs = h("input", {
    type: "text",
    readonly: "",
    id: "obs-address",
    "aria-label": "Address for an OBS browser source",
  });
  const show = (): void => {
    if (help.open) return help.close();
    obs.value = obsAddress();
    help.showModal();
  };
  const all = [...keys, { key: "?", does: "Show or hide this list", run: show }];
  const list = byId("keys");
  for (const each of all) list.append(h("dt", {}, h("kbd", {}, each.key.toUpperCase())), h("dd", {}, each.does));
  list.after(
    h("p", { class: "note", id: "obs-note" }, "Address for an OBS browser source, with the settings of now:"),
    obs,
  );
  obs.addEventListener("focus", () => obs.select());
  byId("help-open").addEventListener("click", show);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const target = event.target as Element;
    // Letters belong to who types or chooses with them; switches and buttons have no use for them.
    if (target.closest("select, textarea, input:not([type=checkbox], [type=radio])")) return;
    const found = all.find((each) => each.key === event.key.toLowerCase());
    if (!found || (help.open && found.key !== "?")) return;
    event.preventDefault();
    found.run();
  });
}
