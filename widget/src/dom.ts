/** Elements without innerHTML, so that no text of a page or an answer ever becomes markup. */

type Attributes = Record<string, string | number | boolean | undefined>

export function element<K extends keyof HTMLElementTagNameMap>(
  name: K, attributes: Attributes = {}, ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "")
    else if (value !== undefined && value !== false) made.setAttribute(key, String(value))
  }
  made.append(...children)
  return made
}

const SVG = "http://www.w3.org/2000/svg"

/** An icon of one path in a box of 24 by 24, which screen readers skip. */
export function icon(path: string): SVGElement {
  const svg = document.createElementNS(SVG, "svg")
  const drawn = document.createElementNS(SVG, "path")
  svg.setAttribute("viewBox", "0 0 24 24")
  svg.setAttribute("aria-hidden", "true")
  drawn.setAttribute("d", path)
  svg.append(drawn)
  return svg
}

/** The text, its web addresses as links; together its nodes' text is the text itself. */
export function linked(text: string): (Node | string)[] {
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>".,;:!?)])/).map((part, index) =>
    index % 2 ? element("a", { href: part, target: "_blank", rel: "noopener" }, part) : part)
}

/** 128 random bits; randomUUID is missing on pages without https. */
export function random(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16))
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").slice(0, 22)
}

/** Tell the page around: `ostoja:sent`, `ostoja:unavailable`. */
export function tell(from: HTMLElement, name: string, detail: object = {}): void {
  from.dispatchEvent(new CustomEvent(`ostoja:${name}`, { bubbles: true, composed: true, detail }))
}
