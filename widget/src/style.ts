/** One style sheet for all our elements. No directive of a CSP governs a constructed sheet. */

import css from "./style.css"

const sheet = new CSSStyleSheet()
sheet.replaceSync(css)

export function styled(host: HTMLElement): ShadowRoot {
  const root = host.attachShadow({ mode: "open" })
  root.adoptedStyleSheets = [sheet]
  return root
}
