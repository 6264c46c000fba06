// The token of a service that asks for one.

import { setToken, token } from "../api.ts";
import { byId } from "./dom.ts";

export function listenForToken(changed: () => void): void {
  const field = byId<HTMLInputElement>("token");
  field.value = token();
  field.addEventListener("change", () => {
    setToken(field.value.trim());
    changed();
  });
}

export function askForToken(): void {
  byId("access").hidden = false;
  byId("token").focus();
}
