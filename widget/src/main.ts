/** What the script tag does: it defines the two elements, and puts those on the page that it names. */

import { defineChat } from "./chat"
import { element } from "./dom"
import { defineForm } from "./form"
import { resume } from "./queue"

const script = document.currentScript as HTMLScriptElement | null

// The script may stand on a page twice. Without constructed style sheets (browsers before 2023) the
// page keeps its own content inside <ostoja-form>.
if (script && !customElements.get("ostoja-form") && "adoptedStyleSheets" in document) {
  const gateway = new URL(script.src).origin
  defineForm(gateway)
  defineChat(gateway)
  resume(gateway)
}

if (script) {
  const { form, chat, language, privacy, ...others } = script.dataset
  if (form) {
    const made = element("ostoja-form" as "div", { form, language })
    Object.assign(made.dataset, others) // the values of hidden fields
    script.after(made)
  }
  if (chat !== undefined) {
    const add = () => document.body.append(
      element("ostoja-chat" as "div", { heading: chat || undefined, language, privacy }))
    if (document.body) add()
    else document.addEventListener("DOMContentLoaded", add)
  }
}
