// The settings form: what is chosen, read from and written to the controls, and what of it changed.

import { brief, sentence, type Config, type Leaky, type Model, type Settings } from "../protocol.ts";
import { DEFAULTS, measures, type Choice } from "../params.ts";
import { cameras, type Kind } from "../source/open.ts";
import type { Pattern } from "../source/pattern.ts";
import { byId, text } from "./dom.ts";

export type Key = keyof Choice;

const SIZES: [number, number, string][] = [
  [512, 512, "square"],
  [640, 480, "4:3"],
  [768, 512, "3:2"],
  [640, 360, "16:9"],
  [1280, 720, "16:9"],
  [1920, 1080, "16:9"],
  [512, 768, "2:3"],
  [720, 1280, "9:16"],
];
const CUSTOM = "custom";
const NUMBERS = { batch_size: "batch-size", threshold: "threshold", max_batches: "max-batches" } as const;

export class Controls {
  readonly #form = byId<HTMLFormElement>("settings");
  readonly #choice: Choice;
  readonly #changed: (keys: Key[]) => void;
  #models: Model[] = [];

  constructor(choice: Choice, changed: (keys: Key[]) => void) {
    this.#choice = choice;
    this.#changed = changed;
    this.#form.addEventListener("submit", (event) => event.preventDefault());
    this.#fillSizes();
    this.#write();
    this.#listen();
  }

  get choice(): Readonly<Choice> {
    return this.#choice;
  }

  /** Sets one choice from code, as if a person had. */
  set<K extends Key>(key: K, value: Choice[K]): void {
    this.#choice[key] = value;
    this.#write();
    this.#changed([key]);
  }

  /** Limits and lists of the service. */
  configure(config: Config): void {
    const codec = byId<HTMLSelectElement>("codec");
    codec.replaceChildren(new Option("Automatic", ""), ...config.codecs.map((name) => new Option(name, name)));
    const known = config.codecs.find((name) => name.toLowerCase() === this.#choice.codec.toLowerCase());
    if (this.#choice.codec && !known)
      codec.append(new Option(`${this.#choice.codec} (not offered here)`, this.#choice.codec));
    codec.value = known ?? this.#choice.codec;
    const limit = (id: string, ...names: string[]): void => {
      const most = names.map((name) => config.limits[name]).find((value) => typeof value === "number");
      if (most !== undefined) byId<HTMLInputElement>(id).max = String(most);
    };
    limit("width", "width", "max_width");
    limit("height", "height", "max_height");
    limit("batch-size", "batch_size", "max_batch_size");
    limit("max-batches", "max_batches");
    byId("access").hidden = !config.token_required;
  }

  models(models: Model[]): void {
    this.#models = models;
    if (byId<HTMLSelectElement>("model").disabled) return;
    const chosen =
      this.#choice.model ??
      (this.#choice.model === undefined ? models.find((model) => model.default)?.name : undefined) ??
      "";
    const select = byId<HTMLSelectElement>("model");
    select.replaceChildren(
      new Option("Pass-through", ""),
      ...models.map(
        (model) =>
          new Option(
            model.state === "error" || model.state === "loading"
              ? `${model.name} (${model.state === "error" ? "broken" : "loading"})`
              : model.name,
            model.name,
          ),
      ),
    );
    if (chosen && !models.some((model) => model.name === chosen))
      select.append(new Option(`${chosen} (not on this service)`, chosen));
    select.value = chosen;
    this.#noteModel();
  }

  /** The model as it will be: chosen, or the service's own. */
  get modelName(): string {
    return byId<HTMLSelectElement>("model").value;
  }

  /** A workflow brings its own model. */
  workflow(there: boolean): void {
    const select = byId<HTMLSelectElement>("model");
    select.disabled = there;
    select.querySelector("[value='*']")?.remove();
    if (there) select.prepend(new Option("As the workflow says", "*", false, true));
    else this.models(this.#models);
    if (there) text(byId("model-note"), "");
  }

  /** What the service says is so. Shown, but not taken for a choice: the next session starts from the choices. */
  actual(settings: Settings): void {
    for (const [key, id] of Object.entries(NUMBERS) as [keyof typeof NUMBERS, string][]) {
      const value = settings[key];
      if (value !== undefined && document.activeElement?.id !== id) byId<HTMLInputElement>(id).value = String(value);
    }
    if (settings.leaky) byId<HTMLSelectElement>("leaky").value = settings.leaky;
    const model = byId<HTMLSelectElement>("model");
    const known = [...model.options].some((option) => option.value === (settings.model ?? ""));
    if (settings.model !== undefined && known && !model.disabled) model.value = settings.model ?? "";
    this.#noteModel();
  }

  /** Back to the choices, for when there is no session whose settings could be shown. */
  reset(): void {
    this.#write();
    this.models(this.#models);
  }

  /** The settings of an offer: what was chosen and nothing else, so that the service's defaults stay its own. */
  settings(workflow: boolean): Settings {
    const { batch_size, threshold, max_batches, leaky, model } = this.#choice;
    const settings: Settings = {};
    if (batch_size !== undefined) settings.batch_size = batch_size;
    if (threshold !== undefined) settings.threshold = threshold;
    if (max_batches !== undefined) settings.max_batches = max_batches;
    if (leaky !== undefined) settings.leaky = leaky;
    if (!workflow) {
      if (model !== undefined) settings.model = model;
      else if (this.#models.length > 0) settings.model = this.modelName || null;
    }
    return settings;
  }

  async listCameras(): Promise<void> {
    const select = byId<HTMLSelectElement>("camera");
    const all = await cameras();
    select.replaceChildren(
      new Option("The browser's choice", ""),
      ...all.map((each) => new Option(each.label, each.id)),
    );
    const wanted = this.#choice.camera.toLowerCase();
    const found = wanted
      ? all.find((each) => each.id === this.#choice.camera || each.label.toLowerCase().includes(wanted))
      : undefined;
    if (found) this.#choice.camera = found.id;
    select.value = found?.id ?? "";
  }

  #fillSizes(): void {
    byId<HTMLSelectElement>("size").append(
      ...SIZES.map(([width, height, ratio]) => new Option(`${width} × ${height}  ${ratio}`, `${width}x${height}`)),
      new Option("Other…", CUSTOM),
    );
  }

  #write(): void {
    const choice = this.#choice;
    byId<HTMLInputElement>(`source-${choice.source}`).checked = true;
    byId<HTMLSelectElement>("pattern").value = choice.pattern;
    byId<HTMLInputElement>("mic").checked = choice.mic;
    const size = byId<HTMLSelectElement>("size");
    const custom =
      size.value === CUSTOM || !SIZES.some(([width, height]) => width === choice.width && height === choice.height);
    if (!custom || size.value !== CUSTOM) size.value = custom ? CUSTOM : `${choice.width}x${choice.height}`;
    byId("custom-size").hidden = size.value !== CUSTOM;
    byId<HTMLInputElement>("width").value = String(choice.width);
    byId<HTMLInputElement>("height").value = String(choice.height);
    const fps = byId<HTMLSelectElement>("fps");
    if (![...fps.options].some((option) => option.value === String(choice.fps)))
      fps.append(new Option(String(choice.fps)));
    fps.value = String(choice.fps);
    for (const [key, id] of Object.entries(NUMBERS) as [keyof typeof NUMBERS, string][]) {
      byId<HTMLInputElement>(id).value = choice[key] === undefined ? "" : String(choice[key]);
    }
    byId<HTMLSelectElement>("leaky").value = choice.leaky ?? "";
    this.#showSource();
  }

  #showSource(): void {
    byId<HTMLInputElement>("measure").checked = measures(this.#choice);
    for (const part of this.#form.querySelectorAll<HTMLElement>("[data-for]"))
      part.hidden = part.dataset["for"] !== this.#choice.source;
    document.documentElement.style.setProperty("--aspect", `${this.#choice.width} / ${this.#choice.height}`);
  }

  #noteModel(): void {
    if (byId<HTMLSelectElement>("model").disabled) return;
    const model = this.#models.find((each) => each.name === this.modelName);
    const note = byId("model-note");
    note.title = model?.text ?? "";
    text(
      note,
      model
        ? sentence(brief(model.text))
        : this.#models.length === 0
          ? "This service lists no models; pictures pass through."
          : "",
    );
  }

  #listen(): void {
    const on = (id: string, take: (value: string) => Key[]): void => {
      const control = byId<HTMLInputElement | HTMLSelectElement>(id);
      control.addEventListener("change", () => {
        const keys = take(control.value);
        this.#showSource();
        if (keys.length > 0) this.#changed(keys);
      });
    };
    for (const radio of this.#form.querySelectorAll<HTMLInputElement>("[name=source]")) {
      on(radio.id, (value) => ((this.#choice.source = value as Kind), ["source"]));
    }
    on("camera", (value) => ((this.#choice.camera = value), ["camera"]));
    on("pattern", (value) => ((this.#choice.pattern = value as Pattern), ["pattern"]));
    on("mic", () => ((this.#choice.mic = byId<HTMLInputElement>("mic").checked), ["mic"]));
    on("measure", () => ((this.#choice.measure = byId<HTMLInputElement>("measure").checked), ["measure"]));
    on("fps", (value) => ((this.#choice.fps = Number(value)), ["fps"]));
    on("codec", (value) => ((this.#choice.codec = value), ["codec"]));
    on("leaky", (value) => ((this.#choice.leaky = (value || undefined) as Leaky | undefined), ["leaky"]));
    on("model", (value) => {
      this.#choice.model = value || null;
      this.#noteModel();
      return ["model"];
    });
    on("size", (value) => {
      byId("custom-size").hidden = value !== CUSTOM;
      const [width, height] = value.split("x").map(Number);
      if (value === CUSTOM || !width || !height) return [];
      this.#choice.width = width;
      this.#choice.height = height;
      byId<HTMLInputElement>("width").value = String(width);
      byId<HTMLInputElement>("height").value = String(height);
      return ["width", "height"];
    });
    for (const key of ["width", "height"] as const) {
      on(key, () => {
        this.#choice[key] = this.#bounded(key) ?? DEFAULTS[key];
        byId<HTMLInputElement>(key).value = String(this.#choice[key]);
        return ["width", "height"];
      });
    }
    for (const [key, id] of Object.entries(NUMBERS) as [keyof typeof NUMBERS, string][]) {
      on(id, () => {
        this.#choice[key] = this.#bounded(id);
        return [...this.#agree(key), key];
      });
    }
    this.#form.addEventListener("click", (event) => {
      const button = (event.target as Element).closest<HTMLButtonElement>("[data-step]");
      const input = button?.parentElement?.querySelector("input");
      if (!button || !input) return;
      const least = Number(input.min);
      const value = input.value === "" ? least : Number(input.value) + Number(button.dataset["step"]);
      input.value = String(Math.min(Number(input.max), Math.max(least, value)));
      input.dispatchEvent(new Event("change"));
    });
  }

  /** The buffer cannot start later than when it is full: what was not touched gives way. */
  #agree(changed: keyof typeof NUMBERS): Key[] {
    const shown = (id: string): number => Number(byId<HTMLInputElement>(id).value || Number.NaN);
    const threshold = shown("threshold");
    const capacity = shown("max-batches");
    // Where the capacity is the service's own, one batch fits for certain.
    if (changed === "threshold" && threshold > (Number.isNaN(capacity) ? 1 : capacity)) {
      this.#choice.max_batches = threshold;
      byId<HTMLInputElement>("max-batches").value = String(threshold);
      return ["max_batches"];
    }
    if (changed === "max_batches" && threshold > capacity) {
      this.#choice.threshold = capacity;
      byId<HTMLInputElement>("threshold").value = String(capacity);
      return ["threshold"];
    }
    return [];
  }

  /** The number in an input, inside its limits; nothing where it is empty. */
  #bounded(id: string): number | undefined {
    const input = byId<HTMLInputElement>(id);
    if (input.value.trim() === "") return undefined;
    const value = Math.round(Number(input.value));
    if (!Number.isFinite(value)) return undefined;
    const bounded = Math.min(Number(input.max), Math.max(Number(input.min), value));
    // Video codecs halve the colour planes: odd sizes come back changed.
    const even = input.step === "2" ? bounded - (bounded % 2) : bounded;
    input.value = String(even);
    return even;
  }
}
