import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

// The viewer's markup has inline handlers, which our Content-Security-Policy forbids; src/viewer.ts adds listeners in their place.
const withoutInlineHandlers = {
  name: "without-inline-handlers",
  transform(code, id) {
    if (!id.includes("supersplat-viewer/dist/viewer.js")) return null;
    const changed = code.replace(/ on(wheel|pointerdown)=\\"event\.stopPropagation\(\)\\"/g, ' data-keeps-$1=\\"\\"');
    if (changed === code) this.error("the viewer's inline handlers were not found: look at its markup again");
    return { code: changed, map: null };
  },
};

// Two pages, everything bundled: the browser asks nobody but our own server, and no script is inline (Content-Security-Policy).
export default defineConfig({
  base: "/static/",
  plugins: [withoutInlineHandlers],
  build: {
    outDir: here("../api/static"),
    emptyOutDir: true,
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 4000,
    modulePreload: { polyfill: false },
    rolldownOptions: { input: { index: here("index.html"), viewer: here("viewer.html") } },
  },
});
