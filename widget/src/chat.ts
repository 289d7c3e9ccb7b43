/** `<ostoja-chat>`: a bubble, and behind it the conversation with the gateway's chatbot. */

import { element, icon, linked, random, tell } from "./dom"
import { passing, pause, post } from "./gateway"
import { conversation, type Turn } from "./session"
import { styled } from "./style"
import { language, texts } from "./texts"

const BUBBLE = "M4 3h16a2 2 0 0 1 2 2v11a2 2 0 0 1-2 2H9l-5 4v-4a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2m3 6v2h10V9zm0 4v2h7v-2z"
const CLOSE = "m12 10.6 5.3-5.3 1.4 1.4L13.4 12l5.3 5.3-1.4 1.4L12 13.4l-5.3 5.3-1.4-1.4 5.3-5.3-5.3-5.3 1.4-1.4z"
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
        log, element("div", { class: "foot" }, hint, write, notice))
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
        if (open) log.scrollTop = log.scrollHeight
        if (focus) (open ? text : bubble).focus()
      }
      bubble.addEventListener("click", () => show(dialog.hidden))
      close.addEventListener("click", () => show(false))
      dialog.addEventListener("keydown", (event) => {
        if (event.key === "Escape") show(false)
      })

      const lines = new Map<Turn, Element>()
      const say = (turn: Turn): void => {
        const name = element("span", { class: "unseen" }, `${turn.mine ? t.you : t.they}: `)
        const line = element("div", { class: turn.mine ? "turn mine" : "turn" }, name,
          element("span", {}, ...linked(turn.text)),
          ...(turn.lost ? [element("small", {}, t.lost)] : []))
        lines.set(turn, line)
        log.append(line)
        log.scrollTop = log.scrollHeight
      }
      const greet = (): void => {
        log.replaceChildren()
        say({ mine: false, text: t.greeting })
        conversation.turns.forEach(say)
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
          const body = JSON.stringify({ message: turn.text, session_id: conversation.id(), language: spoken })
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
            else kept.turns.push({ mine: false, text: String(reply.body.reply) })
            if (reply.body.session_id) kept.id = reply.body.session_id
          })
          if (answered.lost) lines.get(answered)?.append(element("small", {}, t.lost))
          else {
            say(conversation.turns[conversation.turns.length - 1]!)
            if (dialog.hidden) bubble.classList.add("unread")
          }
        }
        note("")
        this.#sending = false
      }

      write.addEventListener("submit", (event) => {
        event.preventDefault()
        const message = text.value.trim()
        text.focus()
        if (!message) return
        text.value = ""
        conversation.id()
        const turn = { mine: true, text: message, key: random() }
        conversation.change((kept) => kept.turns.push(turn))
        say(turn)
        this.#wake.dispatchEvent(new Event("wake"))
        void drain()
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
