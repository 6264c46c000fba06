// Where a picture spends its time in the browser, by the browser's own counters.

/** The counters of the video that goes out and comes in, added up since the connection began. */
async function counters() {
  const peer = window.rigPeers.findLast((each) => each.connectionState === "connected");
  const found = {};
  (await peer.getStats()).forEach((each) => {
    if (each.kind === "video" && each.type.endsWith("bound-rtp") && !each.type.startsWith("remote")) found[each.type] = each;
  });
  return found;
}

/** Starts to count; what it gives ends that, and tells means in milliseconds. */
export async function browserStages(page) {
  const before = await page.evaluate(counters);
  return async () => {
    const after = await page.evaluate(counters);
    const since = (kind, key) => (after[kind][key] ?? 0) - (before[kind][key] ?? 0);
    const mean = (kind, seconds, count) => Math.round((since(kind, seconds) / Math.max(1, since(kind, count))) * 1e4) / 10;
    return {
      encode: mean("outbound-rtp", "totalEncodeTime", "framesEncoded"),
      pace: mean("outbound-rtp", "totalPacketSendDelay", "packetsSent"),
      wait: mean("inbound-rtp", "jitterBufferDelay", "jitterBufferEmittedCount"),
      decode: mean("inbound-rtp", "totalDecodeTime", "framesDecoded"),
    };
  };
}
