// The live page: joins the form, the source, the session and what is shown of them.

import { ApiError, config as getConfig } from "./api.ts";
import { changesOf, type Changes } from "./changes.ts";
import { ControlError } from "./control.ts";
import { Measure } from "./latency/measure.ts";
import { format, measures, type Choice, type Flags } from "./params.ts";
import {
  refresh,
  sentence,
  type BufferMessage,
  type Config,
  type ControlMessage,
  type ControlRequest,
  type StateMessage,
  type Stats,
  type Workflow,
} from "./protocol.ts";
import { RtcSampler, type RtcFigures } from "./rtc.ts";
import { Session, type Phase, type Wish } from "./session.ts";
import { SourceKeeper } from "./source/keeper.ts";
import { SourceError, type Wanted } from "./source/open.ts";
import { askForToken, listenForToken } from "./ui/access.ts";
import { Controls, type Key } from "./ui/controls.ts";
import { byId, text } from "./ui/dom.ts";
import { Figures } from "./ui/figures.ts";
import { followModels } from "./ui/models.ts";
import { Monitors } from "./ui/monitors.ts";
import { errorBody, Notices, type Action } from "./ui/notices.ts";
import { RecordButton } from "./ui/recording.ts";
import { showStatus } from "./ui/status.ts";
import { Texts } from "./ui/texts.ts";
import { plan, said, showMeta, SOURCES } from "./ui/words.ts";
import { WorkflowBox } from "./ui/workflow.ts";

const TICK_MS = 500;
/** An event of the buffer is seen for so long: figures that come twice a second know nothing of it. */
const EVENT_MS = 1500;
/** Fine enough for a countdown; text that does not change is not written. */
const SHOW_MS = 100;

export class App {
  readonly notices = new Notices();
  readonly monitors = new Monitors();
  readonly measure = new Measure(this.monitors.output);
  readonly texts = new Texts((message) => this.notices.news(message));
  readonly controls: Controls;
  phase: Phase = "idle";
  server: StateMessage | undefined;
  buffer: BufferMessage | undefined;
  stats: Stats | undefined;
  rtc: RtcFigures = {};
  session: Session | undefined;
  output: MediaStream | undefined;
  readonly #figures = new Figures();
  readonly #workflow = new WorkflowBox((workflows) => this.#prompts(workflows));
  readonly #recordOut = new RecordButton("out", (error) => this.notices.error(error));
  readonly #recordIn = new RecordButton("in", (error) => this.notices.error(error));
  readonly #rtc = new RtcSampler();
  readonly #source = new SourceKeeper({
    taken: (stream) => {
      this.monitors.showInput(stream);
      this.#recordIn.stream = stream;
    },
    ended: () => {
      this.stop();
      this.notices.news("The source ended", "It was stopped, unplugged, or taken by another program.");
    },
  });
  readonly #flags: Flags;
  #config: Config | undefined;
  #file: File | undefined;
  #text = "";
  #detail = "";
  #bufferAt = 0;
  #ticks = 0;
  /** Changes of the source are made one after the other. */
  #turn: Promise<void> = Promise.resolve();

  constructor(choice: Choice, flags: Flags) {
    this.#flags = flags;
    this.controls = new Controls(choice, (keys) => this.#changed(keys));
    setInterval(() => this.#tick(), TICK_MS);
    setInterval(() => this.#show(), SHOW_MS);
    listenForToken(() => void this.load());
    addEventListener("pagehide", () => this.stop());
    const media = navigator.mediaDevices as MediaDevices | undefined;
    media?.addEventListener("devicechange", () => void this.controls.listCameras());
    this.#setPhase("idle", "Idle");
  }

  /** Asks the service what there is. The page works without an answer, as far as it can. */
  async load(): Promise<void> {
    try {
      this.#config = await getConfig();
      this.controls.configure(this.#config);
      if (this.#config.version) text(byId("about"), `comfystream ${this.#config.version}`);
      await followModels(this.controls);
    } catch (error) {
      this.#report(error, { label: "Try again", run: () => void this.load() });
    }
    await this.controls.listCameras().catch(() => undefined);
    this.#refresh();
  }

  get running(): boolean {
    return this.session !== undefined;
  }

  async toggle(): Promise<void> {
    if (this.running || this.phase === "opening") return this.stop();
    await this.start();
  }

  async start(): Promise<void> {
    if (this.running) return;
    this.notices.clear();
    this.#forget();
    const { source } = this.controls.choice;
    this.#setPhase(
      "opening",
      `Opening ${SOURCES[source]}`,
      source === "camera" || source === "screen" ? "Allow it if the browser asks." : "",
    );
    try {
      if (!(await this.#source.open(this.#wanted(), () => this.phase === "opening"))) return;
    } catch (error) {
      if (this.phase !== "opening") return;
      return this.#failed(error);
    }
    if (source === "camera") void this.controls.listCameras();
    this.session = new Session(() => this.#wish(), {
      phase: (phase, message) => this.#setPhase(phase, message),
      message: (message) => this.#message(message),
      text: (line) => this.texts.add(line),
      output: (stream) => {
        this.output = stream;
        this.monitors.showOutput(stream);
      },
      ready: () => this.#ready(),
      error: (error) => this.#failed(error),
    });
    await this.session.start();
  }

  stop(): void {
    const { session } = this;
    this.session = undefined;
    session?.stop();
    this.#release();
    if (this.phase !== "idle") this.#setPhase("idle", "Idle");
    this.controls.reset();
  }

  togglePause(): void {
    void this.ask({ type: "comfy:settings", paused: this.server?.state !== "paused" });
  }

  /** Sends a request and says what became of it, if it did not go well. */
  async ask(request: ControlRequest): Promise<boolean> {
    const control = this.session?.control;
    if (!control?.open) return false;
    try {
      this.#message(await control.request(request));
      return true;
    } catch (error) {
      this.#report(error);
      // Shown again as it is: the control must not tell what was refused.
      void control.request({ type: "comfy:settings" }).then(
        (answer) => this.#message(answer),
        () => undefined,
      );
      return false;
    }
  }

  /** A file from a dialog or dropped: a video to send, or a workflow. */
  async take(file: File): Promise<void> {
    if (file.type.startsWith("video/")) {
      this.#file = file;
      text(byId("video-file-name"), file.name);
      byId("video-drop").classList.add("full");
      return this.controls.set("source", "file");
    }
    const before = this.#workflow.held;
    try {
      const workflows = await this.#workflow.read(file);
      this.#showWorkflow();
      // What was refused does not run, and must not look as if it did.
      if (this.session?.control?.open && !(await this.ask({ type: "update_prompts", prompts: workflows })))
        this.#workflow.hold(before);
    } catch (error) {
      this.notices.error(error);
    }
    this.#showWorkflow();
  }

  #showWorkflow(): void {
    this.controls.workflow(this.#workflow.value !== undefined);
    this.#refresh();
  }

  dropWorkflow(): void {
    this.#workflow.clear();
    this.#showWorkflow();
    void this.ask({ type: "comfy:settings", model: this.controls.modelName || null });
  }

  #prompts(workflows: Workflow[]): void {
    if (this.session?.control?.open) void this.ask({ type: "update_prompts", prompts: workflows });
  }

  #wanted(): Wanted {
    const choice = this.controls.choice;
    return { ...choice, kind: choice.source, file: this.#file, stamp: measures(choice) };
  }

  #wish(): Wish {
    const { codec, width, height } = this.controls.choice;
    const { stream } = this.#source;
    if (!stream) throw new Error("There is no source");
    return {
      stream,
      ice: this.#config?.ice_servers ?? [],
      codec,
      prompts: this.#workflow.value ?? null,
      resolution: { width, height },
      settings: this.controls.settings(this.#workflow.value !== undefined),
    };
  }

  #release(): void {
    this.#recordIn.stream = undefined;
    this.#recordOut.stream = undefined;
    this.#source.release();
    this.monitors.showInput(undefined);
    this.monitors.showOutput(undefined);
    this.measure.on = false;
    this.output = undefined;
  }

  #changed(keys: Key[]): void {
    const { pathname } = location;
    if (!this.#flags.clean) history.replaceState(history.state, "", pathname + format(this.controls.choice));
    this.#refresh();
    if (!this.running) return;
    const changes = changesOf(keys, this.controls.choice);
    if (changes.source !== "no" || changes.reconnect) {
      this.#turn = this.#turn
        .then(() => this.#reshape(changes))
        .catch((error: unknown) => this.#report(error, ...this.#wayOut(error)));
    }
    for (const request of changes.requests) void this.ask(request);
    if (changes.unset) this.notices.news("The service's own value is used again from the next start");
  }

  async #reshape({ source, reconnect }: Changes): Promise<void> {
    const { session } = this;
    if (!session) return;
    const still = (): boolean => this.session === session;
    const another = source !== "no" && (await this.#source.reshape(this.#wanted(), source === "anew", still));
    const track = this.#source.stream?.getVideoTracks()[0];
    if (reconnect && still()) await session.restart();
    else if (another && track) await session.replaceTrack(track);
    this.measure.on = this.phase === "live" && this.#source.stamped;
  }

  #ready(): void {
    // A new channel tells its state anew; one that only lost contact for a while does not.
    this.server = undefined;
    this.buffer = undefined;
    if (!this.#workflow.value) return;
    // What the service knows of the inputs (limits, choices) makes better fields than the bare workflow.
    void this.session?.control?.request({ type: "get_nodes" }).then(
      (answer) => answer.type === "nodes_info" && this.#workflow.explain(answer.nodes),
      () => undefined,
    );
  }

  #message(message: ControlMessage): void {
    switch (message.type) {
      case "comfy:state":
        // A model that was only there to be asked for is loaded by now, or it is known why not.
        if (message.state !== this.server?.state && ["running", "failed"].includes(message.state))
          void followModels(this.controls).catch(() => undefined);
        this.server = message;
        this.#refresh();
        break;
      case "comfy:buffer":
        this.buffer = message;
        this.#bufferAt = performance.now();
        this.#figures.buffer(message, this.stats);
        break;
      case "comfy:stats":
        if (message.stats) this.stats = message.stats;
        if (this.buffer) {
          const { state } = this.buffer;
          const event = state === "overrun" || state === "underrun";
          this.buffer = refresh(this.buffer, message.stats?.buffer);
          if (event && this.stats?.batch?.size && performance.now() - this.#bufferAt < EVENT_MS)
            this.buffer = { ...this.buffer, state };
        }
        break;
      case "comfy:settings":
        this.controls.actual(message.settings);
        break;
      case "error":
        if (message.fatal) this.#failed(new ControlError(message.error));
        else this.#report(new ControlError(message.error));
        break;
      default:
    }
  }

  /** The end of a session, or of the attempt to begin one: said where the picture would be. */
  #failed(error: unknown): void {
    this.stop();
    const body = errorBody(error);
    if (error instanceof ApiError && error.status === 401) askForToken();
    // A list of what a workflow lacks does not fit over a picture.
    if (body.nodes?.length) this.notices.error(error);
    else this.notices.note(error);
    const message = body.nodes?.length ? "This workflow does not run here" : sentence(body.message);
    this.#setPhase("failed", message, body.nodes?.length ? "" : sentence(body.hint ?? ""));
    this.monitors.offer(this.#wayOut(error), body.code);
  }

  #wayOut(error: unknown): Action[] {
    const again = { label: "Try again", run: () => (this.stop(), void this.start()) };
    if (errorBody(error).nodes?.length) {
      const without = {
        label: "Go on without it",
        run: () => {
          this.notices.clear();
          this.dropWorkflow();
          void this.start();
        },
      };
      return [without, again];
    }
    if (!(error instanceof SourceError)) return [again];
    const instead = <K extends Key>(label: string, key: K, value: Choice[K]): Action => ({
      label,
      run: () => {
        this.controls.set(key, value);
        if (!this.running) void this.start();
      },
    });
    if (error.mic) return [instead("Go on without it", "mic", false), again];
    return this.controls.choice.source === "test"
      ? [again]
      : [instead("Use the test pattern", "source", "test"), again];
  }

  #report(error: unknown, ...actions: Action[]): void {
    if (error instanceof ApiError && error.status === 401) askForToken();
    this.notices.error(error, ...actions);
  }

  #forget(): void {
    this.server = undefined;
    this.buffer = undefined;
    this.stats = undefined;
    this.rtc = {};
    this.#rtc.forget();
    this.measure.reset();
    this.#figures.clear();
  }

  #refresh(): void {
    this.#setPhase(this.phase, this.#text, this.#detail);
  }

  #setPhase(phase: Phase, message: string, detail = ""): void {
    // The service ended the session: what is left of it here goes, too.
    if (phase === "failed" && this.session) this.stop();
    const live = phase === "live";
    if (live && this.phase !== "live") this.#rtc.forget();
    this.phase = phase;
    this.#text = message;
    this.#detail = detail;
    this.measure.on = live && this.#source.stamped;
    showStatus({
      state: this.state,
      text: live ? said(this.server) : phase === "failed" ? "Failed" : message,
      running: this.running || phase === "opening",
      live,
    });
    this.#recordOut.stream = live ? this.output : undefined;
    this.monitors.plan(this.controls.choice.source, this.#plan().input);
    if (phase !== "failed") this.monitors.offer([]);
    this.#show();
  }

  /** One word for where things stand: the service's own while there is a connection. */
  get state(): string {
    return this.phase === "live" ? (this.server?.state ?? "running") : this.phase;
  }

  #plan(): ReturnType<typeof plan> {
    return plan(this.controls.choice, this.#file, this.#workflow.value ? "your workflow" : this.controls.modelName);
  }

  #show(): void {
    this.monitors.show({
      phase: this.phase,
      text: this.#text,
      detail: this.phase === "idle" ? this.#plan().output : this.#detail,
      server: this.server,
      buffer: this.buffer,
      bufferAt: this.#bufferAt,
      pictures: this.monitors.pictures,
    });
  }

  #tick(): void {
    this.#ticks += 1;
    this.#recordIn.show();
    this.#recordOut.show();
    const pc = this.session?.pc;
    if (pc && this.phase === "live" && this.#ticks % 2 === 0) {
      void this.#rtc.look(pc).then((figures) => {
        this.rtc = figures;
        showMeta(figures, this.stats);
      });
    }
    const live = this.phase === "live";
    const latency = this.measure.tell(live && this.server?.state !== "paused", this.stats, this.rtc);
    if (!live) return this.#figures.latency(latency);
    this.#figures.tick(latency, this.measure.takeSlot(), this.stats);
    this.#figures.rates(this.rtc, this.stats);
    this.#figures.buffer(this.buffer, this.stats);
  }
}
