import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

// Two pages, everything bundled: the browser asks nobody but our own server, and no script is inline (Content-Security-Policy).
export default defineConfig({
  base: "/static/",
  build: {
    outDir: here("../api/static"),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 4000,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: { index: here("index.html"), viewer: here("viewer.html") } },
  },
});
