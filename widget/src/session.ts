/** The visitor's conversation in this tab, from the first message or submission on. */

import { random } from "./dom"

export interface Tap {
  ask: string
  choice?: string
  value?: string | number
  wording?: string
}

export interface Ask {
  id: string
  kind: "choice" | "number" | "month" | "phone" | "email" | "consent"
  label: string
  choices: { id: string, label: string }[]
  skippable: boolean
  wording?: { text: string, sha256: string }
}

export interface Fact {
  name: string
  label: string
  text: string
  sure: boolean
}

export interface Turn {
  mine: boolean
  text: string
  tap?: Tap // instead of the text
  key?: string // of a message that has no reply yet
  lost?: boolean
}

interface Kept {
  id: string
  turns: Turn[]
  ask: Ask | null // of the last reply
  card: Fact[]
  open: boolean
  at: number // of the last change
}

const NAME = "ostoja.chat"
const MOST = 100
const IDLE = 30 * 60_000

const fresh = (): Kept => ({ id: "", turns: [], ask: null, card: [], open: false, at: Date.now() })

/** Whether its visitor has probably left this screen; what waits to be sent is kept. */
const idle = () => kept.at < Date.now() - IDLE && !kept.turns.some((each) => each.key)

function load(): Kept {
  try {
    return { ...fresh(), ...JSON.parse(sessionStorage.getItem(NAME) ?? "{}") }
  } catch {
    return fresh() // blocked: for as long as the page is open
  }
}

const kept = load()

export const conversation = {
  get turns(): readonly Turn[] {
    return kept.turns
  },
  get ask(): Ask | null {
    return kept.ask
  },
  get card(): readonly Fact[] {
    return kept.card
  },
  get open(): boolean {
    return kept.open
  },
  /** @returns whether it was forgotten, for whoever comes next to a shared screen */
  expire(): boolean {
    if (!idle()) return false
    Object.assign(kept, fresh())
    try {
      sessionStorage.removeItem(NAME)
    } catch {
      // blocked
    }
    return true
  },
  id(): string {
    if (!kept.id) this.change(() => kept.id = random())
    return kept.id
  },
  /** Change it and keep it, but nothing before the first message (`id`). */
  change(act: (conversation: Kept) => void): void {
    act(kept)
    kept.at = Date.now()
    kept.turns = kept.turns.slice(-MOST)
    if (!kept.id) return
    try {
      sessionStorage.setItem(NAME, JSON.stringify(kept))
    } catch {
      // blocked or full
    }
  },
}
