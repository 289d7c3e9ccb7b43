/** `<ostoja-chat>`: a bubble, and behind it the conversation with the gateway's chatbot. */

import { element, icon, linked, random, tell } from "./dom"
import { call, passing, pause, post } from "./gateway"
import { conversation, type Ask, type Tap, type Turn } from "./session"
import { styled } from "./style"
import { language, texts } from "./texts"

const BUBBLE = "M4 3h16a2 2 0 0 1 2 2v11a2 2 0 0 1-2 2H9l-5 4v-4a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2m3 6v2h10V9zm0 4v2h7v-2z"
const CLOSE = "m12 10.6 5.3-5.3 1.4 1.4L13.4 12l5.3 5.3-1.4 1.4L12 13.4l-5.3 5.3-1.4-1.4 5.3-5.3-5.3-5.3 1.4-1.4z"
const FIELDS = {
  number: { inputmode: "decimal" },
  phone: { type: "tel", autocomplete: "tel" },
  email: { type: "email", autocomplete: "email" },
}
const SEND = "M3 20V14l8-2-8-2V4l19 8z"

/** @param gateway where the script came from */
export function defineChat(gateway: string): void {
  customElements.define("ostoja-chat", class extends HTMLElement {
    #root = styled(this)
    #wake = new EventTarget()
    #sending = false
    #built = false

    connectedCallback(): void {
      if (this.#built) return
      this.#built = true
      const spoken = language(this.getAttribute("language"))
      const t = texts[spoken]
      const title = this.getAttribute("heading") || t.chat

      const log = element("div", { class: "log", role: "log", tabindex: 0, "aria-label": title, part: "log" })
      const card = element("details", { class: "card", part: "card" })
      const taps = element("div", { class: "taps", part: "taps" })
      const hint = element("p", { class: "hint", role: "status" })
      const text = element("textarea", {
        id: "text", rows: 1, maxlength: 4000, placeholder: t.message, enterkeyhint: "send", part: "input",
      })
      const send = element("button", { class: "main", "aria-label": t.submit, part: "button" }, icon(SEND))
      const close = element("button", { class: "close", type: "button", "aria-label": t.close }, icon(CLOSE))
      const write = element("form", { class: "write" },
        element("label", { for: "text", class: "unseen" }, t.message), text, send)
      const privacy = this.getAttribute("privacy") || `${gateway}/privacy?language=${spoken}`
      const notice = element("p", { class: "privacy", part: "notice" },
        t.data, " ",
        element("a", { href: privacy, target: "_blank", rel: "noopener" }, t.privacy))
      const dialog = element("div", { class: "dialog", id: "dialog", role: "dialog", "aria-labelledby": "title", part: "dialog" },
        element("div", { class: "head" }, element("h2", { id: "title" }, title), close),
        log, element("div", { class: "foot" }, card, taps, hint, write, notice))
      const bubble = element("button", { class: "bubble", type: "button", "aria-controls": "dialog", part: "bubble" },
        icon(BUBBLE))
      this.#root.append(element("div", { class: "chat", lang: spoken }, bubble, dialog))

      const show = (open: boolean, focus = true): void => {
        if (open && conversation.expire()) greet()
        dialog.hidden = !open
        bubble.setAttribute("aria-expanded", String(open))
        bubble.setAttribute("aria-label", open ? t.close : t.open)
        bubble.classList.remove("unread")
        conversation.change((kept) => kept.open = open)
        if (open) {
          log.scrollTop = log.scrollHeight
          void begin()
        }
        if (focus) (open ? text : bubble).focus()
      }
      bubble.addEventListener("click", () => show(dialog.hidden))
      close.addEventListener("click", () => show(false))
      dialog.addEventListener("keydown", (event) => {
        if (event.key === "Escape") show(false)
      })

      const chip = (text: string, tap: Tap, attributes = {}): HTMLElement => {
        const button = element("button", { type: "button", class: "chip", part: "chip", ...attributes }, text)
        button.addEventListener("click", () => {
          log.focus() // the next in order are the chips of the reply
          mine(text, tap)
        })
        return element("li", {}, button)
      }
      /** What the last reply asks, between the conversation and the field for a message. */
      const offer = (ask: Ask | null = conversation.ask): void => {
        const facts = conversation.card
        card.hidden = !facts.length
        const noted = facts.map((fact) => fact.text).join(" · ")
        card.replaceChildren(
          element("summary", {}, element("b", {}, t.noted), ` ${noted}`),
          element("ul", {}, ...facts.map((fact) => chip(`${t.change}: ${fact.label}`,
            { ask: "card", choice: fact.name }, { "aria-label": `${t.change}: ${fact.label}, ${fact.text}` }))))
        taps.replaceChildren()
        taps.hidden = !ask
        if (!ask) return
        const { id, kind, label, wording } = ask
        if (wording) taps.append(element("p", { id: "wording" }, ...linked(wording.text)))
        const field = kind in FIELDS && element("input", {
          ...FIELDS[kind as keyof typeof FIELDS], id: "value", maxlength: 254, part: "input",
        })
        if (field) {
          const give = element("form", { novalidate: true },
            element("label", { for: "value" }, label), field, element("button", { class: "main" }, t.submit))
          give.addEventListener("submit", (event) => {
            event.preventDefault()
            const given = field.value.trim()
            const digits = given.replace(/\s/g, "").replace(",", ".")
            const plain = id.startsWith("budget") ? /^\d{4,}$/ : /^\d+(\.\d\d?)?$/
            if (!given) return field.focus()
            log.focus()
            // A budget of `60` or `60.000` and a number in words are read as a message is.
            mine(given, kind !== "number" ? { ask: id, value: given }
              : plain.test(digits) ? { ask: id, value: +digits } : undefined)
          })
          taps.append(give)
        }
        const chips = ask.choices.map((each) => chip(each.label, { ask: id, choice: each.id, wording: wording?.sha256 }))
        if (ask.skippable) chips.push(chip(t.skip, { ask: id, choice: "skip" }))
        taps.append(element("ul", {
          class: kind, "aria-label": label, "aria-describedby": wording && "wording",
        }, ...chips))
      }

      const why = ({ tap }: Turn): HTMLElement => {
        const kind = conversation.ask?.kind as keyof typeof FIELDS
        return element("small", {}, tap?.value !== undefined && t[kind] || t.lost)
      }
      const lines = new Map<Turn, Element>()
      const say = (turn: Turn): void => {
        const name = element("span", { class: "unseen" }, `${turn.mine ? t.you : t.they}: `)
        const line = element("div", { class: turn.mine ? "turn mine" : "turn" }, name,
          element("span", {}, ...linked(turn.text)),
          ...(turn.lost ? [why(turn)] : []))
        lines.set(turn, line)
        log.append(line)
        log.scrollTop = log.scrollHeight
      }
      const greet = (): void => {
        log.replaceChildren()
        say({ mine: false, text: t.greeting })
        conversation.turns.forEach(say)
        offer()
      }
      /** The chips of the opening, for who has said nothing yet. */
      const begin = async (): Promise<void> => {
        if (conversation.turns.length) return
        const opening = await call(`${gateway}/api/chatbot/chat?language=${spoken}`)
        if (opening.status === 200 && !conversation.turns.length) offer(opening.body.ask)
      }
      conversation.expire()
      greet()

      const note = (text: string): void => {
        hint.textContent = text
        log.scrollTop = log.scrollHeight // it has become lower
      }

      /** One message at a time, in order; each with the same key and body at each try. */
      const drain = async (): Promise<void> => {
        if (this.#sending) return
        this.#sending = true
        let tries = 0
        for (let turn; (turn = conversation.turns.find((each) => each.key));) {
          if (!tries) note(t.writing)
          const said = turn.tap ? { tap: turn.tap } : { message: turn.text }
          const body = JSON.stringify({ ...said, session_id: conversation.id(), language: spoken, greeted: true })
          const reply = await post(`${gateway}/api/chatbot/chat`, turn.key ?? "", body,
            { "Accept-Language": spoken })
          if (passing(reply.status)) {
            const contact = reply.body.contact && new URL(reply.body.contact, gateway).href
            if (contact && !conversation.turns.some((each) => each.text.includes(contact))) {
              const turn = { mine: false, text: `${t.spent} ${contact}` }
              conversation.change((kept) => kept.turns.push(turn))
              say(turn)
            }
            note(contact ? "" : reply.status === 429 ? t.busy : reply.status === 409 ? t.writing : t.offline)
            if (!tries && reply.status !== 429 && reply.status !== 409) tell(this, "unavailable", { chat: true })
            await pause(tries++, reply.wait, this.#wake)
            continue
          }
          tries = 0
          const answered = turn
          conversation.change((kept) => {
            delete answered.key
            if (reply.status !== 200) answered.lost = true
            else {
              const { reply: text, ask, card } = reply.body
              // The wording of a consent stands above its buttons.
              kept.turns.push({ mine: false, text: text.replace(ask?.wording?.text ?? "", "") })
              Object.assign(kept, { ask: ask ?? null, card: card ?? [] })
            }
            if (reply.body.session_id) kept.id = reply.body.session_id
          })
          offer()
          if (answered.lost) lines.get(answered)?.append(why(answered))
          else {
            say(conversation.turns.at(-1)!)
            if (dialog.hidden) bubble.classList.add("unread")
          }
        }
        note("")
        this.#sending = false
      }

      const mine = (text: string, tap?: Tap): void => {
        conversation.id()
        const said: Turn[] = [{ mine: true, text, tap, key: random() }]
        const wording = taps.querySelector("p")?.textContent
        if (wording && !log.textContent?.includes(wording)) said.unshift({ mine: false, text: wording }) // it stays to be read
        conversation.change((kept) => kept.turns.push(...said))
        offer(null) // one tap is sent once; a refused one brings them back
        said.forEach(say)
        this.#wake.dispatchEvent(new Event("wake"))
        void drain()
      }
      write.addEventListener("submit", (event) => {
        event.preventDefault()
        const message = text.value.trim()
        text.focus()
        if (!message) return
        text.value = ""
        mine(message)
      })
      text.addEventListener("keydown", (event) => {
        if (event.key !== "Enter" || event.shiftKey || event.isComposing) return
        event.preventDefault()
        write.requestSubmit()
      })

      show(conversation.open, false)
      void drain()
    }
  })
}
