import { defineConfig } from "vite";

// Three files whose names never change: the binary embeds them by name, and browsers ask with a hash whether they did.
export default defineConfig({
  base: "/console/",
  build: {
    assetsInlineLimit: 0,
    modulePreload: false,
    rollupOptions: {
      output: { entryFileNames: "console.js", assetFileNames: "console[extname]", codeSplitting: false },
    },
  },
  // `npm run dev` serves the pages anew at every change, and asks a running peer for the rest.
  server: { proxy: { "/console/api": "http://127.0.0.1:9001", "/console/s3": "http://127.0.0.1:9001" } },
});
