// Recording a stream to a file on this computer.

// WebM first: what is written survives a tab that crashes, an MP4 without its end does not play.
const TYPES = ["video/webm;codecs=vp9,opus", "video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];

export class Recording {
  readonly #recorder: MediaRecorder;
  readonly #began = performance.now();
  #parts: Blob[] = [];

  constructor(stream: MediaStream, what: string) {
    const type = TYPES.find((each) => MediaRecorder.isTypeSupported(each));
    this.#recorder = new MediaRecorder(stream, { videoBitsPerSecond: 8_000_000, ...(type ? { mimeType: type } : {}) });
    this.#recorder.addEventListener("dataavailable", (event) => {
      if (event.data.size > 0) this.#parts.push(event.data);
    });
    this.#recorder.addEventListener("stop", () => this.#save(what));
    this.#recorder.start(1000);
  }

  get seconds(): number {
    return (performance.now() - this.#began) / 1000;
  }

  onEnd(ended: () => void): void {
    this.#recorder.addEventListener("stop", ended);
  }

  stop(): void {
    if (this.#recorder.state !== "inactive") this.#recorder.stop();
  }

  #save(what: string): void {
    const type = this.#recorder.mimeType || "video/webm";
    const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "").replace("T", "-");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(this.#parts, { type }));
    link.download = `comfystream-${what}-${stamp}.${type.includes("mp4") ? "mp4" : "webm"}`;
    link.click();
    this.#parts = [];
    // The download has to begin before its address goes.
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
}
