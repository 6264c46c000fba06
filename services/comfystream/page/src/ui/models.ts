// The list of models, asked for again while one of them loads.

import { models } from "../api.ts";
import type { Controls } from "./controls.ts";

const AGAIN_MS = 3000;

export async function followModels(controls: Controls): Promise<void> {
  const all = await models();
  controls.models(all);
  if (all.some((model) => model.state === "loading"))
    setTimeout(() => void followModels(controls).catch(() => undefined), AGAIN_MS);
}
