// Eleven checks of the widget in a browser that Playwright cannot drive.
//
//   node checks.js firefox|webkit PAGE CONTROL
//
// PAGE is examples/site on a running system, CONTROL the test's own server: /refuse and /resume stop
// and start the way to the gateway. Prints one JSON object: the checks, and the addresses that sent.

import { randomBytes } from "node:crypto"
import { open } from "./drivers.js"

const [kind, url, control] = process.argv.slice(2)
const page = await open(kind)
const address = () => `anna.${randomBytes(6).toString("hex")}@example.pl`
const sent = []
const checks = []

const ask = (source, ...given) => page.evaluate(source, given)
const form = "document.querySelector('ostoja-form').shadowRoot"
const chat = "document.querySelector('ostoja-chat').shadowRoot"

async function until(source, ...given) {
  for (let left = 300; ; left--) {
    const answer = await ask(source, ...given)
    if (answer) return answer
    if (!left) throw new Error(`never true: ${source}`)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

async function check(claim, act) {
  await fetch(`${control}/resume`)
  try {
    await act()
    checks.push({ claim, fault: null })
  } catch (error) {
    checks.push({ claim, fault: String(error) })
  }
}

const ready = () => until(`return !!document.querySelector('ostoja-form')?.shadowRoot?.querySelector('#field-email')`)
const write = (to) => ask(`${form}.querySelector('#field-email').value = given[0]`, to)
const send = () => ask(`${form}.querySelector('form button').click()`)
const title = (text) => until(`return ${form}.querySelector('.panel h2')?.textContent === given[0]`, text)
const keys = () => ask("return [...Object.keys(localStorage), ...Object.keys(sessionStorage)]")
const equal = (found, wanted) => {
  if (JSON.stringify(found) !== JSON.stringify(wanted)) {
    throw new Error(`${JSON.stringify(found)}, not ${JSON.stringify(wanted)}`)
  }
}
const THANKS = "Dziękujemy, zgłoszenie dotarło"
const WAITS = "Zgłoszenie czeka na połączenie"

await check("the form is styled under a strict policy", async () => {
  await page.goto(url)
  await ready()
  equal(await ask(`return getComputedStyle(${form}.querySelector('form')).display`), "grid")
  equal(await ask(`return getComputedStyle(${form}.querySelector('.main')).backgroundColor`), "rgb(43, 84, 69)")
})
await check("nothing is stored before the visitor's own act", async () => {
  await write(address())
  await ask(`${chat}.querySelector('.bubble').click()`)
  await ask(`${chat}.querySelector('.close').click()`)
  equal(await keys(), [])
})
await check("a missing address is marked and focused", async () => {
  await write("")
  await send()
  await until(`return ${form}.activeElement?.id === 'field-email'`) // the gateway says so: email or phone
  equal(await ask(`return !!${form}.querySelector('#field-email-fault').textContent`), true)
})
await check("a form is sent, with what was shown", async () => {
  const to = address()
  await write(to)
  await ask(`${form}.querySelector('[type=checkbox]').click()`)
  const shown = await ask(`return ${form}.querySelector('.consent label').innerText`)
  sent.push({ address: to, shown })
  await send()
  await title(THANKS)
  equal(await keys(), [])
})
await check("the language can be changed", async () => {
  await ask("document.querySelector('ostoja-form').setAttribute('language', 'en')")
  await ready()
  equal(await ask(`return ${form}.querySelector('form button').textContent`), "Send")
  await ask("document.querySelector('ostoja-form').setAttribute('language', 'pl')")
  await ready()
})
await check("a form waits for the network over a reload", async () => {
  const to = address()
  await write(to)
  await fetch(`${control}/refuse`)
  sent.push({ address: to })
  await send()
  await title(WAITS)
  equal((await keys()).length, 1)
  await page.goto(url) // the script is in the browser's cache
  await title(WAITS)
  await fetch(`${control}/resume`)
  await title(THANKS)
  equal(await keys(), [])
})
await check("a visitor can delete what waits", async () => {
  await page.goto(url)
  await ready()
  await write(address())
  await fetch(`${control}/refuse`)
  await send()
  await title(WAITS)
  await ask(`${form}.querySelector('.plain').click()`)
  equal(await keys(), [])
})
await check("the chat answers, and takes the focus back", async () => {
  await page.goto(url)
  await ready()
  await ask(`${chat}.querySelector('.bubble').click()`)
  equal(await ask(`return ${chat}.activeElement?.id`), "text")
  await ask(`${chat}.querySelector('#text').value = 'Remont łazienki'; ${chat}.querySelector('.write button').click()`)
  await until(`return ${chat}.querySelectorAll('.turn').length === 3`)
  await ask(`${chat}.querySelector('#text').dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))`)
  equal(await ask(`return ${chat}.activeElement?.className`), "bubble")
})
await check("the conversation goes on over the next page", async () => {
  await page.goto(url)
  await ready()
  equal(await ask(`return ${chat}.querySelectorAll('.turn').length`), 3)
})
await check("a form that asks for proof is solved unseen", async () => {
  const to = address()
  await ask("document.querySelector('ostoja-form').setAttribute('form', 'proved')")
  await ready()
  await write(to)
  sent.push({ address: to })
  await send()
  await title(THANKS)
})
await check("no cookie is set", async () => equal(await ask("return document.cookie"), ""))

await page.close()
console.log(JSON.stringify({ checks, sent }))
