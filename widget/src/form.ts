/** `<ostoja-form form="contact">`: one of the gateway's forms, and what becomes of a submission. */

import { element, icon, linked, random, tell } from "./dom"
import { call, passing, pause } from "./gateway"
import { canSolve, type Challenge } from "./proof"
import { entries, lapsed, queue, remove, submit, type Entry, type State } from "./queue"
import { conversation } from "./session"
import { styled } from "./style"
import { language, texts, type Texts } from "./texts"

interface Field {
  name: string
  type: "text" | "textarea" | "email" | "phone" | "number" | "money" | "select" | "date" | "hidden"
  label: string
  required?: boolean
  max_length?: number
  options?: { value: string, label: string }[]
}

interface Form {
  form: string
  version: string
  title: string
  language: string
  fields: Field[]
  consents: { purpose: string, version: string, sha256: string, text: string }[]
  notice: { version: string, url: string, text: string }
  trap: string | null
  issued: string | null
  challenge?: Challenge | null
}

type Control = HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement

const KEYBOARD: Partial<Record<Field["type"], object>> = {
  email: { type: "email", autocomplete: "email" },
  phone: { type: "tel", autocomplete: "tel" },
  number: { inputmode: "decimal" },
  money: { inputmode: "decimal" },
  date: { type: "date" },
}
const CHECK = "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20m-1.5 14.4-4-4L8 11l2.5 2.6L16 8l1.4 1.4z"
const CLOCK = "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20m1 5v4.6l3.4 2-1 1.7L11 12.7V7z"

/** @param gateway where the script came from */
export function defineForm(gateway: string): void {
  customElements.define("ostoja-form", class extends HTMLElement {
    static observedAttributes = ["form", "language"]
    #root = styled(this)
    #view = element("div", { class: "form", part: "form" })
    #texts: Texts = texts.pl
    #showing = 0 // a later view ends what an earlier one waits for
    #entry: Entry | undefined // what this form has sent
    #mine: Entry | undefined // that, if on this page: only then its sender still sits here
    #stored = true
    #live = false
    #news = (event: Event) => this.#heard((event as CustomEvent).detail)

    connectedCallback(): void {
      this.#live = true
      this.#root.append(this.#view)
      queue.addEventListener("news", this.#news)
      this.#begin()
    }

    disconnectedCallback(): void {
      this.#live = false
      queue.removeEventListener("news", this.#news)
      this.#showing++
    }

    attributeChangedCallback(): void {
      if (this.#live) this.#begin()
    }

    get #form(): string {
      return this.getAttribute("form") ?? ""
    }

    /** Show what still waits from an earlier page, or else the form. */
    #begin(): void {
      this.#texts = texts[language(this.getAttribute("language"))]
      this.#view.lang = language(this.getAttribute("language"))
      const waiting = entries(gateway).find((each) => each.form === this.#form)
      this.#entry = waiting
      if (!this.#form) return
      if (waiting && !waiting.faults) this.#showWaiting()
      else this.#refused(waiting)
    }

    /** Back to the form: with the entry's values if its sender is here, or else with a word about it. */
    #refused(entry?: Entry): void {
      const mine = this.#mine
      if (entry && entry.key === mine?.key) return void this.#load({ ...mine, faults: entry.faults })
      if (entry) {
        remove(entry)
        lapsed.add(this.#form)
      }
      void this.#load()
    }

    /** @param refused fill its values in and mark its faults */
    async #load(refused?: Entry): Promise<void> {
      const now = ++this.#showing
      const asked = language(this.getAttribute("language"))
      const url = `${gateway}/api/forms/${encodeURIComponent(this.#form)}?language=${asked}`
      this.#show(...[1, 2, 3, 4].map(() => element("div", { class: "bone" })))
      this.#view.setAttribute("aria-busy", "true")
      for (let tries = 0; ; tries++) {
        const reply = await call(url, { signal: AbortSignal.timeout(8000) })
        if (now !== this.#showing) return
        if (reply.status === 200 && reply.body.challenge && !canSolve()) {
          const page = `${gateway}/forms/${encodeURIComponent(this.#form)}?language=${asked}`
          return this.#show(this.#fallback(this.#texts.insecure, element("a", { href: page }, page)))
        }
        if (reply.status === 200) {
          // Not while somebody writes in the page's own form.
          if (!this.matches(":focus-within")) return this.#fill(reply.body, refused)
        } else if (tries === 1 || !passing(reply.status)) {
          const again = element("button", { type: "button" }, this.#texts.again)
          again.addEventListener("click", () => void this.#load(refused))
          this.#show(this.#fallback(this.#texts.unavailable, again))
          tell(this, "unavailable", { form: this.#form })
        }
        if (reply.status !== 200 && !passing(reply.status)) return
        await pause(tries, reply.wait, queue)
        if (now !== this.#showing) return
      }
    }

    /** The page's own content, or else ours. */
    #fallback(text: string, act: Node): Node {
      this.#view.classList.toggle("bare", this.childElementCount > 0)
      return element("slot", {}, element("div", { class: "panel" }, element("p", {}, text), act))
    }

    #show(...nodes: Node[]): void {
      this.#view.removeAttribute("aria-busy")
      if (!(nodes[0] instanceof HTMLSlotElement)) this.#view.classList.remove("bare")
      this.#view.replaceChildren(...nodes)
    }

    #fill(form: Form, refused?: Entry): void {
      const t = this.#texts
      const controls = new Map<string, Control>()
      const boxes = new Map<string, HTMLInputElement>()
      const status = element("p", { class: "status", role: "alert" })
      const button = element("button", { class: "main", part: "button" }, t.submit)
      const shown = form.fields.filter((each) => each.type !== "hidden")
      const nodes = shown.map((field, index) => {
        const control = this.#control(field)
        controls.set(field.name, control)
        const marks = field.required ? [] : [" ", element("small", {}, t.optional)]
        return element("div", { class: wide(shown, index) ? "field wide" : "field", part: "field" },
          element("label", { for: control.id, part: "label" }, field.label, ...marks),
          control, element("p", { class: "fault", id: control.id + "-fault" }))
      })
      for (const { purpose, sha256, text } of form.consents) {
        const id = `consent-${purpose}`
        const box = element("input", { type: "checkbox", id, name: id, value: sha256 })
        boxes.set(purpose, box)
        nodes.push(element("div", { class: "consent wide", part: "consent" }, box,
          element("label", { for: id }, ...linked(text))))
      }
      const trap = element("input", { id: "trap", tabindex: -1, autocomplete: "off" })
      trap.name = form.trap ?? ""
      if (form.trap) {
        nodes.push(element("div", { class: "unseen", "aria-hidden": "true" },
          element("label", { for: "trap" }, t.trap), trap))
      }
      const heading = element("h2", { id: "title", part: "title" }, form.title)
      const body = element("form", { novalidate: true, "aria-labelledby": "title" },
        heading, ...nodes, status, button,
        element("p", { class: "notice wide", part: "notice" }, element("span", {}, form.notice.text),
          " ", element("a", { href: form.notice.url, target: "_blank", rel: "noopener" }, t.notice)))

      const mark = (faults: Map<string, string>, text: string): void => {
        for (const [name, control] of controls) {
          const fault = faults.get(name)
          const described = control.nextElementSibling
          if (described) described.textContent = fault ?? ""
          if (fault) {
            control.setAttribute("aria-invalid", "true")
            control.setAttribute("aria-describedby", control.id + "-fault")
          } else {
            control.removeAttribute("aria-invalid")
            control.removeAttribute("aria-describedby")
          }
        }
        status.textContent = text
        const first = [...controls.entries()].find(([name]) => faults.has(name))
        if (text) (first ? first[1] : button).focus()
      }

      body.addEventListener("submit", (event) => {
        event.preventDefault()
        if (button.hasAttribute("aria-disabled")) return
        const faults = new Map<string, string>()
        const values: Record<string, string> = {}
        for (const field of form.fields) {
          const control = controls.get(field.name)
          const value = (control ? control.value : this.dataset[field.name] ?? "").trim()
          const fault = control ? faultOf(field, value, control, t) : ""
          if (fault) faults.set(field.name, fault)
          if (value) values[field.name] = value
        }
        mark(faults, faults.size ? t.correct : "")
        if (faults.size) return
        const agreed = [...boxes].filter(([, box]) => box.checked)
        this.#submit(form, {
          fields: values,
          consents: Object.fromEntries(agreed.map(([purpose, box]) => [purpose, box.value])),
          agreed_at: agreed.length ? new Date().toISOString() : undefined,
          trap: trap.value || undefined,
        })
        button.setAttribute("aria-disabled", "true") // disabled would lose the focus
        button.textContent = t.sending
        status.textContent = ""
      })

      this.#show(body)
      if (lapsed.delete(this.#form)) status.textContent = t.expired
      if (!refused) return
      remove(refused)
      const sent = JSON.parse(refused.body)
      for (const [name, control] of controls) control.value = sent.fields[name] ?? ""
      for (const [purpose, box] of boxes) box.checked = sent.consents[purpose] === box.value
      const faults = new Map<string, string>()
      for (const { field, message } of refused.faults ?? []) {
        if (field.startsWith("fields.")) faults.set(field.slice("fields.".length), message)
      }
      mark(faults, [...faults.keys()].some((name) => controls.has(name)) ? t.correct : t.refused)
    }

    #control(field: Field): Control {
      const common = { id: `field-${field.name}`, name: field.name, required: field.required, part: "input" }
      const typed = { ...common, maxlength: field.max_length }
      if (field.type === "textarea") return element("textarea", { ...typed, rows: 4 })
      if (field.type === "select") {
        return element("select", common, element("option", { value: "" }, this.#texts.choose),
          ...(field.options ?? []).map((each) => element("option", { value: each.value }, each.label)))
      }
      const name = field.name === "name" ? { autocomplete: "name" } : {}
      return element("input", { type: "text", ...typed, ...name, ...KEYBOARD[field.type] })
    }

    #submit(form: Form, given: object): void {
      const body = JSON.stringify({
        form: form.form, form_version: form.version, language: form.language,
        // A visitor who has chatted is one lead; the next one at a tablet in a showroom is another.
        session_id: conversation.turns.length ? conversation.id() : undefined,
        notice_version: form.notice.version,
        issued: form.issued ?? undefined,
        page: location.origin + location.pathname, ...given,
      })
      this.#entry = {
        key: random(), gateway, form: this.#form, body, at: Date.now(),
        proof: !!form.challenge,
      }
      this.#mine = this.#entry
      this.#showing++
      this.#stored = submit(this.#entry)
    }

    #heard({ entry, state }: { entry: Entry, state: State }): void {
      if (!this.#entry || entry.key !== this.#entry.key) return
      this.#entry = state === "waiting" ? entry : undefined
      const t = this.#texts
      if (state === "waiting") this.#showWaiting()
      else if (state === "refused") this.#refused(entry)
      else if (lapsed.has(entry.form)) void this.#load()
      else if (state === "removed") this.#showEnd(t.handledTitle, [t.handled])
      else {
        this.#showEnd(t.sentTitle, entry.sent?.length ? [t.sent, t.notRecorded] : [t.sent])
        tell(this, "sent", { form: entry.form })
      }
    }

    #showWaiting(): void {
      if (this.#view.querySelector(".waiting")) return
      this.#showing++
      const t = this.#texts
      const entry = this.#entry
      const now = element("button", { type: "button", class: "main", part: "button" }, t.now)
      const drop = element("button", { type: "button", class: "plain" }, t.remove)
      now.addEventListener("click", () => queue.dispatchEvent(new Event("wake")))
      drop.addEventListener("click", () => {
        if (entry) remove(entry)
        this.#entry = undefined
        this.#showEnd("", [t.removed])
      })
      this.#panel("waiting", CLOCK, t.waitingTitle, [this.#stored ? t.waiting : t.held],
        element("div", { class: "acts" }, now, drop), this.#another())
    }

    #showEnd(title: string, lines: string[]): void {
      this.#showing++
      this.#panel("sent", CHECK, title, lines, this.#another())
    }

    /** For the next one at a shared screen. */
    #another(): Node {
      const another = element("button", { type: "button", class: "plain" }, this.#texts.another)
      another.addEventListener("click", () => {
        this.#entry = undefined
        void this.#load().then(() =>
          this.#root.querySelector<HTMLElement>("input,textarea,select")?.focus())
      })
      return another
    }

    /** What happened, in place of the form: read out, and where the focus was. */
    #panel(kind: string, path: string, title: string, lines: string[], ...acts: Node[]): void {
      const had = this.#root.activeElement
      const panel = element("div", { class: `panel ${kind}`, role: "status", tabindex: -1, part: "panel" },
        icon(path), ...(title ? [element("h2", {}, title)] : []),
        ...lines.map((line) => element("p", {}, line)), ...acts)
      this.#show(panel)
      if (had) panel.focus()
    }
  })
}

/** A short field stands alone in its row if the row would else have a hole. */
function wide(fields: Field[], index: number): boolean {
  const long = (at: number) => !fields[at] || fields[at].type === "textarea"
  if (long(index)) return true
  let first = index
  while (!long(first - 1)) first--
  return (index - first) % 2 === 0 && long(index + 1)
}

function faultOf(field: Field, value: string, control: Control, t: Texts): string {
  if (!value && !control.validity.badInput) return field.required ? t.missing : ""
  const right = field.type === "email" ? /^[^\s@]+@[^\s@]+\.[^\s@]+$/.test(value)
    : field.type === "phone" ? (value.match(/\d/g) ?? []).length >= 6
    : field.type === "number" || field.type === "money" ? /\d/.test(value)
    : !control.validity.badInput
  return right ? "" : wording(field, t)
}

function wording(field: Field, t: Texts): string {
  switch (field.type) {
    case "email": return t.email
    case "phone": return t.phone
    case "number": case "money": return t.number
    case "date": return t.date
    default: return t.missing
  }
}
