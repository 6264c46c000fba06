// Figures of the service and of every session, once a second.
// For tests: ids as in stats.html, a card per session with data-session, its button data-testid="end-<id>".

import { ApiError, endSession, health, sessions, stream, streams, takeTokenFromAddress } from "./api.ts";
import { brief, type Health, type SessionInfo, type StreamFps } from "./protocol.ts";
import { initTheme } from "./theme.ts";
import { Card } from "./ui/card.ts";
import { byId, FigureList, h, text } from "./ui/dom.ts";
import { Notices } from "./ui/notices.ts";

const POLL_MS = 1000;
const AWAY_MS = 3000;

const notices = new Notices();
const service = new FigureList(byId("service"));
const cards = new Map<string, Card>();
let away = false;
let models = "";

function end(id: string): void {
  endSession(id).catch((error: unknown) => notices.error(error));
}

function showService(now: Health): void {
  byId("status").dataset["phase"] = now.status;
  text(byId("status-text"), { ready: "Ready", loading: "Loading models", error: "In error" }[now.status] ?? now.status);
  service.show([
    {
      label: "Sessions",
      value: String(now.sessions),
      unit: ` of ${now.max_sessions}`,
      bad: now.sessions >= now.max_sessions,
    },
    { label: "Models", value: String(now.models.length) },
    { label: "Version", value: now.version },
  ]);
  const said = JSON.stringify(now.models);
  if (said === models) return;
  models = said;
  byId("models").replaceChildren(
    ...now.models.map((model) =>
      h(
        "li",
        { class: "tally", "data-phase": model.state, title: model.text ?? "" },
        h("i", { "aria-hidden": "true" }),
        h("span", {}, model.state === "ready" ? model.name : `${model.name}, ${brief(model.text) || model.state}`),
      ),
    ),
  );
}

/** Frame rates of one that the list of streams leaves out: those who watch share the stream of somebody else. */
async function rateOf(info: SessionInfo, rates: Record<string, StreamFps>): Promise<Partial<StreamFps> | undefined> {
  // Gone in between: it is not in the next list.
  return rates[info.id] ?? stream(info.id).catch(() => undefined);
}

async function poll(): Promise<void> {
  try {
    // First one alone: where nobody answers, one failure says it.
    showService(await health());
    const [all, rates] = await Promise.all([sessions(), streams()]);
    const minutes = await Promise.all(all.map((info) => rateOf(info, rates)));
    for (const [id, card] of cards) {
      if (all.some((each) => each.id === id)) continue;
      card.element.remove();
      cards.delete(id);
    }
    all.forEach((info, at) => {
      let card = cards.get(info.id);
      if (!card) {
        card = new Card(info.id, end);
        cards.set(info.id, card);
        byId("sessions").append(card.element);
      }
      card.show(info, minutes[at], info.stats);
    });
    byId("empty").hidden = all.length > 0;
    if (away) notices.clear();
    away = false;
  } catch (error) {
    byId("status").dataset["phase"] = "error";
    text(byId("status-text"), error instanceof ApiError && error.status === 0 ? "No answer" : "In error");
    // Once, not every second.
    if (!away) notices.error(error);
    away = true;
  }
  setTimeout(() => void poll(), away ? AWAY_MS : POLL_MS);
}

initTheme();
takeTokenFromAddress();
void poll();
