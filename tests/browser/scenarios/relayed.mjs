// Nothing but a TURN server between the browser and the service: the browser takes no other way, with the credentials
// that the service gives to pages, and the service offers one through the same server.

import { nextPicture, shows, SENT } from "../lib/live.mjs";
import { blank, offer } from "../lib/raw.mjs";

export default async function relayed({ browsers, service }) {
  await service.ready();
  const { ice_servers } = await service.get("/api/config");
  // A server on the same machine is no way out of it, and not asked otherwise.
  const browser = await browsers.open({ flags: ["--allow-loopback-in-peer-connection"] });
  const page = await blank(browser, service);
  const answer = await offer(page, null, { iceServers: ice_servers, iceTransportPolicy: "relay" });
  await shows(page, SENT);
  const { fps } = await nextPicture(page, "video-out", 15);
  const taken = await page.evaluate(async () => {
    const report = await window.raw.pc.getStats();
    const pair = [...report.values()].find((each) => each.type === "candidate-pair" && each.nominated);
    return report.get(pair.localCandidateId).candidateType;
  });
  await page.evaluate(() => window.raw.pc.close());
  await service.empty();
  return { ice_servers, taken, offered_back: / typ relay/.test(answer.sdp), fps };
}
