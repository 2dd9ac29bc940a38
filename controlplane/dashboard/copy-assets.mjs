// Copies what the pages load out of node_modules into assets/vendor, so that
// the server embeds exactly these files and nothing is fetched at run time.
import { copyFileSync, mkdirSync } from "node:fs";

const files = {
  "htmx.org/dist/htmx.min.js": "htmx.js",
  "htmx-ext-sse/dist/sse.min.js": "htmx-sse.js",
  "uplot/dist/uPlot.iife.min.js": "uplot.js",
  "uplot/dist/uPlot.min.css": "uplot.css",
  "@fontsource-variable/inter/files/inter-latin-wght-normal.woff2": "inter.woff2",
};

mkdirSync("assets/vendor", { recursive: true });
for (const [from, to] of Object.entries(files)) {
  copyFileSync(`node_modules/${from}`, `assets/vendor/${to}`);
}
