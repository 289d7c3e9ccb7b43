// Two browsers behind three functions: goto, evaluate (a function's body, with `given`), close.

import { spawn } from "node:child_process"

export const open = (kind) => ({ firefox, webkit })[kind]()

/** Firefox ESR by WebDriver BiDi: Debian has no geckodriver. */
async function firefox() {
  const { launch } = await import("puppeteer-core")
  const browser = await launch({ browser: "firefox", executablePath: "/usr/bin/firefox-esr", headless: true })
  const page = await browser.newPage()
  return {
    goto: (url) => page.goto(url),
    // As text, which the page's policy does not govern.
    evaluate: (body, given) => page.evaluate(`(given => { ${body} })(${JSON.stringify(given)})`),
    close: () => browser.close(),
  }
}

/** WebKit by its own WebDriver, which needs a display. */
async function webkit() {
  const port = 20000 + process.pid % 20000
  const driver = spawn("WebKitWebDriver", [`--port=${port}`], { stdio: "ignore" })
  driver.unref() // else node would wait for it
  process.on("exit", () => driver.kill())
  const call = async (method, path, body) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, {
      method, headers: { "Content-Type": "application/json" }, body: body && JSON.stringify(body),
    })
    const { value } = await response.json()
    if (!response.ok) throw new Error(JSON.stringify(value))
    return value
  }
  let session
  for (let left = 100; !session; left--) {
    try {
      session = await call("POST", "/session", { capabilities: { alwaysMatch: {} } })
    } catch (error) {
      if (!left) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  const at = `/session/${session.sessionId}`
  return {
    goto: (url) => call("POST", `${at}/url`, { url }),
    evaluate: (body, given) => call("POST", `${at}/execute/sync`,
      { script: `const given = arguments[0]; ${body}`, args: [given] }),
    close: () => call("DELETE", at),
  }
}
