// Offer and answer over HTTP, and what both kinds of connection (camera page, player) need before they can make one.

import { ApiError, request } from "./api.ts";
import type { OfferAnswer, OfferRequest } from "./protocol.ts";

/** Host addresses come within milliseconds; a STUN server that does not answer must not hold up the start. */
const GATHER_MS = 300;
const RETRIES = 5;
const RETRY_MS = 500;

export const pause = (ms: number, signal?: AbortSignal): Promise<void> =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    });
  });

export function gathered(pc: RTCPeerConnection, ms = GATHER_MS): Promise<void> {
  if (pc.iceGatheringState === "complete") return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      pc.removeEventListener("icegatheringstatechange", look);
      resolve();
    };
    const look = (): void => {
      if (pc.iceGatheringState === "complete") done();
    };
    const timer = setTimeout(done, ms);
    pc.addEventListener("icegatheringstatechange", look);
  });
}

/**
 * Puts the wanted codec first and keeps all others behind it, with retransmission and error correction, so that a wish
 * that cannot be met costs nothing.
 */
export function preferCodec(transceiver: RTCRtpTransceiver, wanted: string): void {
  if (!wanted || typeof transceiver.setCodecPreferences !== "function") return;
  // Receiver's codecs: the same picture comes back, and browsers reject what they could not receive.
  const all = RTCRtpReceiver.getCapabilities("video")?.codecs ?? [];
  const mime = `video/${wanted}`.toLowerCase();
  const first = all.filter((codec) => codec.mimeType.toLowerCase() === mime);
  if (first.length === 0) return;
  transceiver.setCodecPreferences([...first, ...all.filter((codec) => !first.includes(codec))]);
}

/**
 * Asks for fewer pictures rather than smaller ones where the way is narrow: a model has a size, and every other one is
 * scaled twice. A wish; browsers that do not know it go on without.
 */
export function keepSize(sender: RTCRtpSender): void {
  const parameters = sender.getParameters();
  parameters.degradationPreference = "maintain-resolution";
  sender.setParameters(parameters).catch(() => undefined);
}

/** Posts the offer. Only silence is tried again: an answer, even a bad one, would be the same the next time. */
export async function postOffer(
  body: OfferRequest,
  signal: AbortSignal,
  retrying: (attempt: number) => void,
): Promise<OfferAnswer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const response = await request("offer", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
        signal,
      });
      return (await response.json()) as OfferAnswer;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 0 || attempt > RETRIES) throw error;
      retrying(attempt);
      await pause(RETRY_MS, signal);
    }
  }
}
