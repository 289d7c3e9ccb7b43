/**
 * Submissions on their way. Each is in localStorage, under a key of its own, before its first try
 * and until the gateway has taken or finally refused it: a page that closes at any moment leaves
 * either nothing, or an entry that the next page sends with the same key, which is the same lead.
 */

import { call, passing, pause, post, type Reply } from "./gateway"
import { canSolve, solve } from "./proof"

export interface Fault {
  field: string
  message: string // in the language of the submission
}

export interface Entry {
  key: string // 128 random bits, the Idempotency-Key
  gateway: string
  form: string
  body: string
  at: number
  proof?: boolean // the gateway wants a proof of work
  faults?: Fault[] // if it was refused; kept, without its body, until a form has told it
  sent?: string[] // purposes whose consent was not recorded; written for other tabs, then removed
}

export type State = "waiting" | "sent" | "refused" | "removed"

/** Says "news" with `{entry, state}`; "wake" ends every pause. */
export const queue = new EventTarget()

const PREFIX = "ostoja.lead."
const MOST = 5
const LOCK = 30_000
const KEPT = 24 * 3600_000
const PROOF_KEPT = 15 * 60_000 // of the 20 minutes that a challenge lives

const memory = new Map<string, Entry>() // where storage is blocked or full
const proofs = new Map<string, { proof: string, at: number }>()
const running = new Set<string>()

/** Forms of which a submission was too old to be sent, until one has told it. */
export const lapsed = new Set<string>()

function storage(): Storage | undefined {
  try {
    return localStorage
  } catch {
    return undefined // blocked
  }
}

function parsed(text: string | null | undefined): Entry | undefined {
  try {
    return text ? JSON.parse(text) : undefined
  } catch {
    return undefined
  }
}

function read(key: string): Entry | undefined {
  return memory.get(key) ?? parsed(storage()?.getItem(PREFIX + key))
}

/** @returns whether a reload would find it again */
function write(entry: Entry): boolean {
  try {
    if (memory.has(entry.key)) throw 0
    localStorage.setItem(PREFIX + entry.key, JSON.stringify(entry))
    return true
  } catch {
    memory.set(entry.key, entry)
    return false
  }
}

/** Change it, unless it was deleted meanwhile. */
function change(entry: Entry): void {
  if (read(entry.key)) write(entry)
}

export function remove(entry: Entry): void {
  memory.delete(entry.key)
  storage()?.removeItem(PREFIX + entry.key)
}

function say(entry: Entry, state: State): void {
  queue.dispatchEvent(new CustomEvent("news", { detail: { entry, state } }))
}

/** The entries of this gateway. What is too old, or was sent as its page closed, is deleted. */
export function entries(gateway: string): Entry[] {
  const kept = storage()
  const found = [...memory.values()]
  for (const name of Object.keys(kept ?? {}).filter((each) => each.startsWith(PREFIX))) {
    const entry = parsed(kept?.getItem(name))
    if (entry && !entry.sent && entry.at > Date.now() - KEPT) {
      found.push(entry)
      continue
    }
    kept?.removeItem(name)
    if (entry && !entry.sent) {
      lapsed.add(entry.form)
      say(entry, "removed")
    }
  }
  return found.filter((each) => each.gateway === gateway)
}

/** @returns whether it outlives this page */
export function submit(entry: Entry): boolean {
  // One more than MOST waits in memory: it is not dropped, and no browser fills up.
  if (entries(entry.gateway).length >= MOST) memory.set(entry.key, entry)
  const stored = write(entry)
  void deliver(entry.gateway, entry.key)
  return stored
}

export function resume(gateway: string): void {
  for (const entry of entries(gateway)) if (!entry.faults) void deliver(gateway, entry.key)
}

/** Try until it is settled; two tabs that try at once send the same key, one lead. */
async function deliver(gateway: string, key: string): Promise<void> {
  if (running.has(key)) return
  running.add(key)
  for (let tries = 0; ; tries++) {
    const wait = await alone(key, async () => {
      const entry = entries(gateway).find((each) => each.key === key)
      return entry && !entry.faults ? attempt(entry) : undefined
    })
    if (wait === undefined) break
    await pause(tries, wait, queue)
  }
  running.delete(key)
}

function alone<T>(key: string, act: () => Promise<T>): Promise<T> {
  if (!navigator.locks) return act()
  // Not for ever: a tab that its browser has frozen keeps its locks.
  const signal = AbortSignal.timeout(LOCK)
  return (navigator.locks.request(PREFIX + key, { signal }, act) as Promise<T>).catch(act)
}

/** @returns seconds that the gateway asks to wait before the next try; undefined: settled */
async function attempt(entry: Entry): Promise<number | undefined> {
  const proved = entry.proof ? await prove(entry) : undefined
  const reply = typeof proved === "object" ? proved : await post(
    entry.gateway + "/api/leads", entry.key, entry.body, proved ? { "X-Proof": proved } : {})
  const faults: Fault[] = reply.body.errors ?? []
  if (reply.status >= 200 && reply.status < 300) {
    // Other tabs see the first change before the second.
    const sent = { ...entry, body: "", sent: reply.body.consents_not_recorded ?? [] }
    change(sent)
    remove(entry)
    say(sent, "sent")
    return undefined
  }
  if (reply.status === 422 && canSolve() && faults.some((each) => each.field === "X-Proof")) {
    if (entry.proof) say(entry, "waiting") // a second refusal: it is no longer a matter of a second
    proofs.delete(entry.key)
    change({ ...entry, proof: true })
    return reply.wait
  }
  if (passing(reply.status)) {
    say(entry, "waiting")
    return reply.wait
  }
  change({ ...entry, body: "", faults })
  say({ ...entry, faults }, "refused")
  return undefined
}

/** Solve a fresh challenge: the form's own may be days old. @returns the failure, if there is one */
async function prove(entry: Entry): Promise<string | Reply | undefined> {
  const known = proofs.get(entry.key)
  if (known && known.at > Date.now() - PROOF_KEPT) return known.proof
  const reply = await call(`${entry.gateway}/api/forms/${encodeURIComponent(entry.form)}`)
  if (passing(reply.status)) return reply
  if (!reply.body.challenge) return undefined
  const proof = await solve(reply.body.challenge)
  proofs.set(entry.key, { proof, at: Date.now() })
  return proof
}

addEventListener("storage", (event) => {
  if (!event.key?.startsWith(PREFIX)) return
  const entry = parsed(event.newValue)
  if (entry) say(entry, entry.sent ? "sent" : entry.faults ? "refused" : "waiting")
  else if (event.newValue === null) say(parsed(event.oldValue) ?? {} as Entry, "removed")
})
