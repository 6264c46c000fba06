// Light, dark, or as the system has it.

const KEY = "comfystream.theme";
const THEMES = ["auto", "light", "dark"] as const;
export type Theme = (typeof THEMES)[number];

function isTheme(value: string | null): value is Theme {
  return THEMES.includes(value as Theme);
}

let current: Theme = "auto";

function apply(theme: Theme): void {
  current = theme;
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  const label = document.getElementById("theme-text");
  if (label) label.textContent = `Theme: ${theme === "auto" ? "as the system" : theme}`;
}

export function nextTheme(): void {
  // From "auto" first to what is not there now: otherwise the first press would seem to do nothing.
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order: Theme[] = dark ? ["auto", "light", "dark"] : ["auto", "dark", "light"];
  apply(order[(order.indexOf(current) + 1) % order.length] ?? "auto");
  localStorage.setItem(KEY, current);
}

/** Called first by every page, before anything is painted. */
export function initTheme(): void {
  const asked = new URLSearchParams(location.search).get("theme");
  const kept = localStorage.getItem(KEY);
  apply(isTheme(asked) ? asked : isTheme(kept) ? kept : "auto");
  document.getElementById("theme")?.addEventListener("click", nextTheme);
}
