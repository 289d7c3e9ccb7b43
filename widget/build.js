// Builds one file, named by its hash, into the gateway's folder, and notes it in builds.toml.
// A version has one build: a new one replaces it, until the version is raised by a release.

import { build, transform } from "esbuild"
import { createHash } from "node:crypto"
import { readFile, rm, writeFile } from "node:fs/promises"
import { gzipSync } from "node:zlib"

const BUDGET = 12 * 1024 // bytes, compressed
const FOLDER = new URL("../services/gateway/static/widget/", import.meta.url)
const LIST = new URL("builds.toml", FOLDER)

const css = {
  name: "css",
  setup: ({ onLoad }) => onLoad({ filter: /\.css$/ }, async ({ path }) => {
    const { code } = await transform(await readFile(path, "utf8"), { loader: "css", minify: true })
    return { contents: code.trim(), loader: "text" }
  }),
}
const { outputFiles: [{ contents }] } = await build({
  absWorkingDir: import.meta.dirname,
  entryPoints: ["src/main.ts"],
  bundle: true,
  charset: "utf8",
  format: "iife",
  legalComments: "none",
  minify: true,
  plugins: [css],
  target: ["chrome111", "firefox113", "safari16.4"],
  write: false,
})

const size = gzipSync(contents, { level: 9 }).length
if (size > BUDGET) throw new Error(`${size} bytes compressed; the budget is ${BUDGET}`)

const source = await readFile(new URL("../ostoja/__init__.py", import.meta.url), "utf8")
const version = /__version__ = "(.+)"/.exec(source)[1]
const name = createHash("sha256").update(contents).digest("hex").slice(0, 16) + ".js"
const [head, ...builds] = (await readFile(LIST, "utf8")).trimEnd().split("\n\n[[builds]]\n")
const same = builds.find((each) => each.startsWith(`version = "${version}"`))
if (!same?.includes(name)) {
  if (same) await rm(new URL(/file = "(.+)"/.exec(same)[1], FOLDER), { force: true })
  const built = new Date().toISOString().slice(0, 10)
  const others = builds.filter((each) => each !== same)
  const all = [...others, `version = "${version}"\nbuilt = ${built}\nfile = "${name}"`]
  await writeFile(LIST, [head, ...all].join("\n\n[[builds]]\n") + "\n")
}
await writeFile(new URL(name, FOLDER), contents)
console.log(`${name}: ${contents.length} bytes, ${size} compressed, of ${BUDGET}`)
