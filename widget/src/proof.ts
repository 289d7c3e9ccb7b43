/** Proof of work against robots: ALTCHA's second protocol with PBKDF2. */

export interface Challenge {
  parameters: { nonce: string, salt: string, cost: number, keyLength: number, keyPrefix: string }
}

const bytes = (hex: string) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16))
const hex = (buffer: ArrayBuffer) =>
  Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("")

/** Browsers do this arithmetic only on pages with https, and on localhost. */
export const canSolve = () => !!crypto.subtle

/** Find the counter whose key begins with the prefix: some hundred tries, under a second. */
export async function solve(challenge: Challenge): Promise<string> {
  const { nonce, salt, cost, keyLength, keyPrefix } = challenge.parameters
  const start = bytes(nonce)
  const password = new Uint8Array(start.length + 4)
  password.set(start)
  const algorithm = { name: "PBKDF2", hash: "SHA-256", salt: bytes(salt), iterations: cost }
  for (let counter = 0; ; counter++) {
    new DataView(password.buffer).setUint32(start.length, counter)
    const key = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"])
    const derivedKey = hex(await crypto.subtle.deriveBits(algorithm, key, keyLength * 8))
    if (derivedKey.startsWith(keyPrefix)) {
      return btoa(JSON.stringify({ challenge, solution: { counter, derivedKey } }))
    }
  }
}
