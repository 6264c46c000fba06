// What the browser itself knows of the connection: rates and losses since the last look.

export interface RtcFigures {
  fps_out?: number;
  fps_in?: number;
  kbps_sent?: number;
  kbps_received?: number;
  /** Share of packets lost since the last look, 0 to 1. */
  loss_sent?: number;
  loss_received?: number;
  rtt_ms?: number;
  jitter_buffer_ms?: number;
  codec_sent?: string;
  codec_received?: string;
  size_sent?: string;
  size_received?: string;
  frames_decoded?: number;
}

type Report = Record<string, number | string | undefined> & { id: string; type: string };

const num = (value: number | string | undefined): number => (typeof value === "number" ? value : 0);

export class RtcSampler {
  #before = new Map<string, Report>();

  async look(pc: RTCPeerConnection): Promise<RtcFigures> {
    const reports = new Map<string, Report>();
    (await pc.getStats()).forEach((report: Report) => reports.set(report.id, report));
    const figures: RtcFigures = {};
    for (const report of reports.values()) {
      const before = this.#before.get(report.id);
      if (report.type === "candidate-pair" && report["nominated"] && report["currentRoundTripTime"] !== undefined) {
        figures.rtt_ms = num(report["currentRoundTripTime"]) * 1000;
      }
      if (report["kind"] !== "video") continue;
      const seconds = before ? (num(report["timestamp"]) - num(before["timestamp"])) / 1000 : 0;
      const since = (key: string): number => num(report[key]) - num(before?.[key]);
      const size = report["frameWidth"] ? `${report["frameWidth"]}×${report["frameHeight"]}` : undefined;
      const codec = reports.get(String(report["codecId"]))?.["mimeType"];
      if (report.type === "inbound-rtp") {
        figures.frames_decoded = num(report["framesDecoded"]);
        if (size) figures.size_received = size;
        if (typeof codec === "string") figures.codec_received = codec.replace("video/", "");
        if (seconds > 0) {
          figures.fps_in = since("framesDecoded") / seconds;
          figures.kbps_received = (since("bytesReceived") * 8) / 1000 / seconds;
          const lost = Math.max(0, since("packetsLost"));
          figures.loss_received = lost / Math.max(1, lost + since("packetsReceived"));
          figures.jitter_buffer_ms =
            (since("jitterBufferDelay") / Math.max(1, since("jitterBufferEmittedCount"))) * 1000;
        }
      }
      if (report.type === "outbound-rtp") {
        if (size) figures.size_sent = size;
        if (typeof codec === "string") figures.codec_sent = codec.replace("video/", "");
        if (seconds > 0) {
          figures.fps_out = since("framesSent") / seconds;
          figures.kbps_sent = (since("bytesSent") * 8) / 1000 / seconds;
        }
      }
      if (report.type === "remote-inbound-rtp") figures.loss_sent = num(report["fractionLost"]);
    }
    this.#before = reports;
    return figures;
  }

  forget(): void {
    this.#before.clear();
  }
}
