/** The visitor's conversation in this tab, from the first message or submission on. */

import { random } from "./dom"

export interface Turn {
  mine: boolean
  text: string
  key?: string // of a message that has no reply yet
  lost?: boolean
}

interface Kept {
  id: string
  turns: Turn[]
  open: boolean
}

const NAME = "ostoja.chat"
const MOST = 100

const fresh = (): Kept => ({ id: "", turns: [], open: false })

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
  get open(): boolean {
    return kept.open
  },
  id(): string {
    if (!kept.id) this.change(() => kept.id = random())
    return kept.id
  },
  /** Change it and keep it, but nothing before the first message (`id`). */
  change(act: (conversation: Kept) => void): void {
    act(kept)
    kept.turns = kept.turns.slice(-MOST)
    if (!kept.id) return
    try {
      sessionStorage.setItem(NAME, JSON.stringify(kept))
    } catch {
      // blocked or full
    }
  },
}
