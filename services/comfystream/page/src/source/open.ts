// Opening the four kinds of source. All give one stream, and can change their shape while they are sent.

import { CanvasSource, fromVideo, type Shape } from "./canvas.ts";
import { draw, type Pattern } from "./pattern.ts";

export const KINDS = ["camera", "screen", "file", "test"] as const;
export type Kind = (typeof KINDS)[number];

export interface Wanted extends Shape {
  kind: Kind;
  camera: string;
  pattern: Pattern;
  file: File | undefined;
  mic: boolean;
}

export interface Opened {
  kind: Kind;
  stream: MediaStream;
  /** Whether the time is painted into what is sent. */
  stamped: () => boolean;
  /** False where it takes opening anew, as a camera that is to carry the time from now on does. */
  reshape: (shape: Shape) => Promise<boolean>;
  stop: () => void;
}

/** What went wrong, in words for people. */
export class SourceError extends Error {
  /** It was the microphone: the picture may go without it. */
  mic = false;
  readonly code: string;
  readonly hint: string;
  constructor(code: string, message: string, hint: string) {
    super(message);
    this.name = "SourceError";
    this.code = code;
    this.hint = hint;
  }
}

function explain(cause: unknown, what: string): SourceError {
  const name = cause instanceof DOMException || cause instanceof Error ? cause.name : "";
  const other = what === "microphone" ? "go on without it" : "use the test pattern";
  switch (name) {
    case "NotAllowedError":
    case "SecurityError":
      return new SourceError(
        "permission_denied",
        `The browser was not allowed to use the ${what}`,
        `Allow it at the left of the address bar and try again, or ${other}.`,
      );
    case "NotFoundError":
    case "OverconstrainedError":
      return new SourceError("not_found", `There is no ${what} that fits`, `Plug one in, or ${other}.`);
    case "NotReadableError":
    case "AbortError":
      return new SourceError(
        "in_use",
        `The ${what} does not start`,
        `Another program may hold it; close that one, or ${other}.`,
      );
    default:
      return new SourceError(
        "source_failed",
        `The ${what} does not start${cause instanceof Error ? `: ${cause.message}` : ""}`,
        `Try again, or ${other}.`,
      );
  }
}

function devices(what: string): MediaDevices {
  // Absent, not denied, on pages that came over plain HTTP from another machine.
  if ((navigator.mediaDevices as MediaDevices | undefined) === undefined) {
    throw new SourceError(
      "insecure",
      `Browsers give a ${what} only to pages from https:// or localhost`,
      "Serve this page over TLS, or use the test pattern or a file.",
    );
  }
  return navigator.mediaDevices;
}

/** From strict to loose: Safari and old webcams refuse whole sets of constraints for one that they cannot meet. */
async function camera(wanted: Wanted): Promise<MediaStream> {
  const media = devices("camera");
  const { width, height, fps } = wanted;
  const device: MediaTrackConstraints = wanted.camera ? { deviceId: { exact: wanted.camera } } : {};
  const attempts: (MediaTrackConstraints | true)[] = [
    {
      ...device,
      width: { exact: width },
      height: { exact: height },
      frameRate: { ideal: fps, max: Math.max(fps, 30) },
    },
    { ...device, width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps } },
    { ...device, width: { ideal: width }, height: { ideal: height } },
    device,
    true,
  ];
  let last: unknown;
  for (const video of attempts) {
    try {
      return await media.getUserMedia({ video, audio: false });
    } catch (cause) {
      last = cause;
      // A refusal is an answer: asking again would only ask the person again.
      if (cause instanceof DOMException && cause.name === "NotAllowedError") break;
    }
  }
  throw explain(last, "camera");
}

async function screen(wanted: Wanted): Promise<MediaStream> {
  try {
    return await devices("screen").getDisplayMedia({
      video: { frameRate: wanted.fps, width: { ideal: wanted.width }, height: { ideal: wanted.height } },
      audio: false,
    });
  } catch (cause) {
    throw cause instanceof SourceError ? cause : explain(cause, "screen");
  }
}

async function microphone(): Promise<MediaStreamTrack | undefined> {
  try {
    const stream = await devices("microphone").getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true },
    });
    return stream.getAudioTracks()[0];
  } catch (cause) {
    const error = cause instanceof SourceError ? cause : explain(cause, "microphone");
    error.mic = true;
    throw error;
  }
}

async function playing(video: HTMLVideoElement): Promise<HTMLVideoElement> {
  video.muted = true;
  video.playsInline = true;
  await video.play();
  return video;
}

async function live(stream: MediaStream, wanted: Wanted): Promise<Opened> {
  const track = stream.getVideoTracks()[0];
  const end = (): void => stream.getTracks().forEach((each) => each.stop());
  if (!wanted.stamp) {
    return {
      kind: wanted.kind,
      stream,
      stamped: () => false,
      reshape: async (shape) => {
        if (shape.stamp) return false;
        const { width, height, fps } = shape;
        await track
          ?.applyConstraints({ width: { ideal: width }, height: { ideal: height }, frameRate: { ideal: fps } })
          .catch(() => undefined);
        return true;
      },
      stop: end,
    };
  }
  const video = document.createElement("video");
  video.srcObject = stream;
  await playing(video);
  const through = fromVideo(video, wanted);
  // Who waits for the end of what is sent watches the canvas's track; the device's end must reach them.
  track?.addEventListener("ended", () => through.source.stream.getVideoTracks()[0]?.dispatchEvent(new Event("ended")));
  return {
    kind: wanted.kind,
    stream: through.source.stream,
    stamped: () => true,
    reshape: async (shape) => {
      if (!shape.stamp) return false;
      through.source.shape = shape;
      return true;
    },
    stop: () => {
      through.stop();
      end();
      video.srcObject = null;
    },
  };
}

async function file(wanted: Wanted): Promise<Opened> {
  if (!wanted.file)
    throw new SourceError(
      "no_file",
      "No video file is chosen",
      "Choose or drop one under Source, or use the test pattern.",
    );
  const video = document.createElement("video");
  const address = URL.createObjectURL(wanted.file);
  video.src = address;
  video.loop = true;
  try {
    await playing(video);
  } catch {
    URL.revokeObjectURL(address);
    throw new SourceError(
      "bad_file",
      `This browser cannot play ${wanted.file.name}`,
      "MP4 with H.264 and WebM play everywhere.",
    );
  }
  const through = fromVideo(video, wanted);
  let stamped = wanted.stamp;
  return {
    kind: "file",
    stream: through.source.stream,
    stamped: () => stamped,
    reshape: async (shape) => {
      through.source.shape = shape;
      stamped = shape.stamp;
      return true;
    },
    stop: () => {
      through.stop();
      video.removeAttribute("src");
      video.load();
      URL.revokeObjectURL(address);
    },
  };
}

function test(wanted: Wanted): Opened {
  const source = new CanvasSource(wanted, draw[wanted.pattern], false);
  let stamped = wanted.stamp;
  return {
    kind: "test",
    stream: source.stream,
    stamped: () => stamped,
    reshape: async (shape) => {
      source.shape = shape;
      stamped = shape.stamp;
      return true;
    },
    stop: () => source.stop(),
  };
}

export async function open(wanted: Wanted): Promise<Opened> {
  // The microphone first: once it is allowed, Chromium tells the peer real addresses instead of mDNS names.
  const mic = wanted.mic ? await microphone() : undefined;
  try {
    const opened =
      wanted.kind === "test"
        ? test(wanted)
        : wanted.kind === "file"
          ? await file(wanted)
          : await live(await (wanted.kind === "camera" ? camera(wanted) : screen(wanted)), wanted);
    if (!mic) return opened;
    opened.stream.addTrack(mic);
    const stop = opened.stop;
    return { ...opened, stop: () => (mic.stop(), stop()) };
  } catch (cause) {
    mic?.stop();
    throw cause;
  }
}

/** Names come only after a permission; without one there may be entries without names, or none. */
export async function cameras(): Promise<{ id: string; label: string }[]> {
  if ((navigator.mediaDevices as MediaDevices | undefined) === undefined) return [];
  const all = await navigator.mediaDevices.enumerateDevices();
  return all
    .filter((device) => device.kind === "videoinput" && device.deviceId)
    .map((device, at) => ({ id: device.deviceId, label: device.label || `Camera ${at + 1}` }));
}
