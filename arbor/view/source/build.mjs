// Bundles src/ and its libraries into ../viewer.html, one file without outside references, and writes their licences.

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { build } from "esbuild";

const hash = (text) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

// Fonts of letters that solutions hardly ever use are left to the system's.
const FONTS = /KaTeX_(Main-(Regular|Bold|Italic)|Math-Italic|AMS-Regular|Size[1-4]-Regular)\.woff2/;
const fonts = {
  name: "fonts",
  setup: (b) => b.onLoad({ filter: /katex\.css$/ }, async ({ path }) => {
    const css = (await readFile(path, "utf8")).replace(/,?\s*url\([^)]*\.(woff|ttf)\) format\("[^"]*"\)/g, "");
    const contents = css.replace(/@font-face\s*\{[^}]*\}/g, (face) => (FONTS.test(face) ? face : ""));
    return { contents, loader: "css" };
  }),
};

const result = await build({
  entryPoints: ["src/main.js", "src/style.css"],
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  outdir: "out",
  format: "iife",
  target: ["chrome110", "firefox115", "safari16.4"],
  charset: "ascii",
  legalComments: "none",
  loader: { ".woff2": "dataurl" },
  plugins: [fonts],
});

const output = (end) => result.outputFiles.find((file) => file.path.endsWith(end)).text.trim();
const script = output(".js").replaceAll("</script", "<\\/script");
const style = output(".css");
const policy = [
  "default-src 'none'", "base-uri 'none'", "form-action 'none'", "img-src data:", "font-src data:",
  `script-src ${hash(script)}`, `style-src ${hash(style)}`,
].join("; ");
const page = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width">
<meta name="referrer" content="no-referrer">
<!--head-->
<title>Arbor</title>
<link rel="icon" href="data:,">
<style>${style}</style>
</head>
<body>
<noscript>This page shows search trees with JavaScript, which is switched off here.</noscript>
<!--data-->
<script>${script}</script>
</body>
</html>
`;
await writeFile("../viewer.html", page);

const used = new Set(Object.keys(result.metafile.inputs).map((path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]));
const licences = [];
for (const name of [...used].filter(Boolean).sort()) {
  const { version, license } = JSON.parse(await readFile(`node_modules/${name}/package.json`, "utf8"));
  const files = ["LICENSE", "LICENSE.md", "license", "LICENSE.txt"].map((file) => readFile(`node_modules/${name}/${file}`, "utf8"));
  licences.push(`${name} ${version} (${license})\n\n${(await Promise.any(files)).trim()}\n`);
}
await writeFile("../LICENCES.txt", `viewer.html contains these libraries.\n\n${licences.join(`\n${"-".repeat(80)}\n\n`)}`);
console.log(`viewer.html: ${page.length} bytes; ${[...used].filter(Boolean).join(", ")}`);
