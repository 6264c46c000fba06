// HTTP to the service. Every failure leaves as an `ApiError`, so that the page has one way to tell people what is wrong.

import {
  asErrorBody,
  type ApiErrorBody,
  type Config,
  type Health,
  type Model,
  type SessionInfo,
  type Source,
  type Stats,
  type StreamFps,
} from "./protocol.ts";

const TOKEN = "comfystream.token";

export class ApiError extends Error {
  readonly body: ApiErrorBody;
  /** 0 where nobody answered at all, the one case in which trying again soon may help. */
  readonly status: number;

  constructor(status: number, body: ApiErrorBody) {
    super(body.message);
    this.name = "ApiError";
    this.status = status;
    this.body = body;
  }
}

// A tab's token: another tab may watch another service at the same address.
export function token(): string {
  return sessionStorage.getItem(TOKEN) ?? "";
}

export function setToken(value: string): void {
  if (value) sessionStorage.setItem(TOKEN, value);
  else sessionStorage.removeItem(TOKEN);
}

/** Takes `?token=` out of the address, where it would end up in history, bookmarks and screenshots. */
export function takeTokenFromAddress(): void {
  const address = new URL(location.href);
  const value = address.searchParams.get("token");
  if (value === null) return;
  setToken(value);
  address.searchParams.delete("token");
  history.replaceState(history.state, "", address);
}

/** Relative to the page, since the same page is served at the top, below `/live/` and behind proxies. */
export function url(path: string): string {
  return new URL(path, document.baseURI).href;
}

export function headers(more: Record<string, string> = {}): Record<string, string> {
  const value = token();
  return value ? { ...more, Authorization: `Bearer ${value}` } : more;
}

export async function request(path: string, init: RequestInit = {}, accept: number[] = []): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url(path), {
      cache: "no-store",
      ...init,
      headers: headers(init.headers as Record<string, string>),
    });
  } catch (cause) {
    if (init.signal?.aborted) throw cause;
    throw new ApiError(0, {
      code: "unreachable",
      message: `The service at ${location.host} does not answer`,
      hint: "Is comfystream serve running, and can this computer reach it?",
    });
  }
  if (response.ok || accept.includes(response.status)) return response;
  let body: unknown;
  try {
    body = await response.json();
  } catch {
    body = undefined;
  }
  throw new ApiError(response.status, asErrorBody(body, `The service answered ${response.status} to ${path}`));
}

async function get<T>(path: string, accept: number[] = []): Promise<T> {
  return (await (await request(path, {}, accept)).json()) as T;
}

// Fields that an older or newer service leaves out must not break the page: lists default to empty.
export async function config(): Promise<Config> {
  const got = await get<Partial<Config>>("api/config");
  return {
    ice_servers: got.ice_servers ?? [],
    codecs: got.codecs ?? [],
    limits: got.limits ?? {},
    token_required: got.token_required ?? false,
    version: got.version ?? "",
  };
}

export const models = async (): Promise<Model[]> => (await get<{ models?: Model[] }>("api/models")).models ?? [];
export const sources = async (): Promise<Source[]> => (await get<{ sources?: Source[] }>("api/sources")).sources ?? [];
export const sessions = async (): Promise<SessionInfo[]> =>
  (await get<{ sessions?: SessionInfo[] }>("api/sessions")).sessions ?? [];
export const streams = (): Promise<Record<string, StreamFps>> => get("streams/stats");
export const stream = (id: string): Promise<Partial<StreamFps> & { stats?: Stats }> =>
  get(`stream/${encodeURIComponent(id)}/stats`);
/** 503 says that it loads or is in error, with the same body. */
export const health = (): Promise<Health> => get("health", [503]);

export async function endSession(id: string): Promise<void> {
  await request(`api/sessions/${encodeURIComponent(id)}`, { method: "DELETE", keepalive: true }, [404]);
}
