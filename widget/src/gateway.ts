/** One call of the gateway, and how long to wait before the next. */

export interface Reply {
  status: number // 0: no response, so nobody knows whether the request arrived
  body: any
  wait: number // seconds, by Retry-After
}

const SECONDS = 20

export async function call(url: string, init: RequestInit = {}): Promise<Reply> {
  try {
    const response = await fetch(url, {
      credentials: "omit", signal: AbortSignal.timeout(SECONDS * 1000), ...init,
    })
    // A body that is cut off counts as no response: its request is repeated with the same key.
    const text = await response.text()
    const wait = Number(response.headers.get("retry-after")) || 0
    return { status: response.status, body: parsed(text), wait }
  } catch {
    return { status: 0, body: {}, wait: 0 }
  }
}

function parsed(text: string): any {
  try {
    return JSON.parse(text) ?? {}
  } catch {
    return {} // a proxy's page
  }
}

export function post(
  url: string, key: string, body: string, headers: Record<string, string> = {},
): Promise<Reply> {
  return call(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": key, ...headers },
    body,
    keepalive: body.length < 16_000, // the browser finishes it if the page closes; of 64 KiB in all
  })
}

/** Whether the same request may succeed later. */
export function passing(status: number): boolean {
  return status === 0 || status >= 500 || [408, 409, 425, 429].includes(status)
}

/**
 * Wait before the next try: 1 s doubling to 60 s with jitter, or until the network or the page is
 * back, or `wake`; but at least the seconds that the gateway asked for.
 */
export function pause(tries: number, asked: number, wake: EventTarget): Promise<void> {
  const usual = Math.min(60, 2 ** tries) * (0.5 + Math.random() / 2)
  const earliest = Date.now() + asked * 1000
  return new Promise((resolve) => {
    const over = new AbortController()
    const end = () => {
      over.abort()
      clearTimeout(timer)
      resolve()
    }
    const early = () => {
      if (Date.now() >= earliest) end()
    }
    const timer = setTimeout(end, Math.max(usual, asked) * 1000)
    const { signal } = over
    window.addEventListener("online", early, { signal })
    wake.addEventListener("wake", early, { signal })
    document.addEventListener("visibilitychange", () => document.hidden || early(), { signal })
  })
}
