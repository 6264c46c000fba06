import { defineConfig, type Plugin } from "vite";

// The theme of a returning visitor is set by the page's script; without this the other theme would flash first.
// `crossorigin` would ask for CORS headers that a plain file server need not send.
const tags: Plugin = {
  name: "page-tags",
  transformIndexHtml: {
    order: "post",
    handler: (html) =>
      html
        .replaceAll(" crossorigin", "")
        .replaceAll('<script type="module"', '<script type="module" blocking="render"'),
  },
};

export default defineConfig({
  // Relative, because the same files are served at `/` and below `/live/`.
  base: "./",
  plugins: [tags],
  build: {
    target: "es2021",
    outDir: "dist",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    rollupOptions: { input: { index: "index.html", player: "player.html", stats: "stats.html" } },
  },
  worker: { format: "es" },
  // `npm run dev` talks to a running service.
  server: {
    proxy: Object.fromEntries(
      ["/offer", "/prompt", "^/whip(/|$)", "^/whep(/|$)", "/api", "/health", "/streams", "/stream/"].map((path) => [
        path,
        process.env["COMFYSTREAM"] ?? "http://127.0.0.1:8889",
      ]),
    ),
  },
});
