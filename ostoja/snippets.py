"""Code that sends a form, to paste into a page or a program; made from GET /api/forms/{form}."""

import json
from html import escape
from typing import Any

Form = dict[str, Any]

SEND = {"pl": "Wyślij", "en": "Send"}
EMPTY = {"pl": "Proszę nie wypełniać", "en": "Please leave this empty"}
CHOOSE = {"pl": "– proszę wybrać –", "en": "– please choose –"}
SENT = {"pl": "Dziękujemy, wiadomość dotarła.", "en": "Thank you, we have your message."}
NOT_SENT = {
    "pl": "Nie udało się wysłać. Proszę nacisnąć przycisk jeszcze raz.",
    "en": "This was not sent. Please press the button again.",
}
_INPUTS = {
    "email": ' type="email" autocomplete="email"',
    "phone": ' type="tel" autocomplete="tel"',
    "date": ' type="date"',
    "number": ' inputmode="decimal"',
    "money": ' inputmode="decimal"',
}
_EXAMPLES = {
    "email": "anna@example.com", "phone": "601 234 567", "number": "80", "money": "250 000",
    "date": "2027-03-15", "textarea": "Remont kuchni, 12 m²",
}  # fmt: skip


def html(form: Form, url: str) -> str:
    """A plain form. Its action leads to the gateway, which leads on to the form's success page."""
    own = {name: form[name] for name in ("form", "language")} | {
        "form_version": form["version"],
        "notice_version": form["notice"]["version"],
        **({"issued": form["issued"]} if form["issued"] else {}),
    }
    lines = [f'<form action="{escape(url)}/api/leads" method="post">', *_inside(form, own)]
    return "\n".join([*lines, "</form>"])


def _inside(form: Form, own: dict[str, str]) -> list[str]:
    lines = [
        f'  <input type="hidden" name="{name}" value="{escape(value)}">'
        for name, value in own.items()
    ]
    lines += [_field(field, form["language"]) for field in form["fields"]]
    if form["trap"]:
        lines.append(
            f"  <p hidden><label>{EMPTY[form['language']]} "
            f'<input name="{form["trap"]}" tabindex="-1" autocomplete="off"></label></p>'
        )
    lines += [
        f'  <p><label><input type="checkbox" name="consent.{consent["purpose"]}" '
        f'value="{consent["sha256"]}"> <span>{escape(consent["text"])}</span></label></p>'
        for consent in form["consents"]
    ]
    notice = form["notice"]
    link = escape(notice["url"])
    lines.append(f'  <p>{escape(notice["text"])} <a href="{link}">{link}</a></p>')
    return [*lines, f"  <button>{SEND[form['language']]}</button>"]


def _field(field: Form, language: str) -> str:
    name, most = field["name"], field["max_length"]
    if field["type"] == "hidden":
        return f'  <input type="hidden" name="{name}" value="">'
    required = " required" if field["required"] else ""
    if field["type"] == "textarea":
        control = f'<textarea name="{name}" maxlength="{most}"{required}></textarea>'
    elif field["type"] == "select":
        options = "".join(
            f'<option value="{escape(option["value"])}">{escape(option["label"])}</option>'
            for option in field["options"]
        )
        first = f'<option value="">{CHOOSE[language]}</option>'
        control = f'<select name="{name}"{required}>{first}{options}</select>'
    else:
        kind = _INPUTS.get(field["type"], "")
        control = f'<input name="{name}"{kind} maxlength="{most}"{required}>'
    return f"  <p><label>{escape(field['label'])} {control}</label></p>"


def wordpress(form: Form, url: str) -> str:
    """For the block *Custom HTML*: without a plug-in."""
    return f"<!-- wp:html -->\n{html(form, url)}\n<!-- /wp:html -->"


_SEND = """\
async function send(fields, consents, key, trap) {
  // The same key for each try: however often this runs, it is one lead.
  for (const pause of [1, 5, 25, null]) {
    try {
      const answer = await fetch("%(url)s/api/leads", {
        method: "POST",
        headers: {"Content-Type": "application/json", "Idempotency-Key": key},
        body: JSON.stringify({
          form: "%(form)s",
          form_version: "%(version)s",
          language: "%(language)s",
          notice_version: "%(notice)s",
          issued: %(issued)s,
          page: location.href,
          fields,
          consents,
          trap,
        }),
      });
      const said = await answer.json();
      if (answer.ok) return said;
      if (![409, 429, 503].includes(answer.status)) {
        throw new Error((said.errors ?? []).map((fault) => fault.message).join(" ") || said.title);
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;  // TypeError: no connection
    }
    if (pause !== null) await new Promise((again) => setTimeout(again, pause * 1000));
  }
  throw new Error("%(not_sent)s");
}
"""


def _send(form: Form, url: str) -> str:
    return _SEND % {
        "url": url,
        "form": form["form"],
        "version": form["version"],
        "language": form["language"],
        "notice": form["notice"]["version"],
        "issued": json.dumps(form["issued"]),
        "not_sent": NOT_SENT[form["language"]],
    }


def fetch(form: Form, url: str) -> str:
    inside = "\n".join(_inside(form, {}))
    return f"""<form id="lead">
{inside}
  <output></output>
</form>
<script type="module">
{_send(form, url)}
const form = document.querySelector("#lead");
let key = crypto.randomUUID();
// Other content is another submission.
form.addEventListener("input", () => {{ key = crypto.randomUUID(); }});
form.addEventListener("submit", async (event) => {{
  event.preventDefault();
  const fields = {{}}, consents = {{}};
  let trap;
  for (const [name, value] of new FormData(form)) {{
    if (name.startsWith("consent.")) consents[name.slice(8)] = value;
    else if (name === {json.dumps(form["trap"])}) trap = value;
    else if (value) fields[name] = value;
  }}
  const output = form.querySelector("output");
  try {{
    await send(fields, consents, key, trap);
    output.textContent = {json.dumps(SENT[form["language"]], ensure_ascii=False)};
    form.reset();
  }} catch (error) {{
    output.textContent = error.message;
  }}
}});
</script>"""


def _jsx(field: Form, language: str) -> str:
    required = " required" if field["required"] else ""
    if field["type"] == "select":
        texts = [("", CHOOSE[language])] + [
            (each["value"], each["label"]) for each in field["options"]
        ]
        options = "".join(
            f"<option value={{{json.dumps(value, ensure_ascii=False)}}}>"
            f"{{{json.dumps(text, ensure_ascii=False)}}}</option>"
            for value, text in texts
        )
        return f'<select name="{field["name"]}"{required}>{options}</select>'
    if field["type"] == "textarea":
        return f'<textarea name="{field["name"]}"{required} />'
    kind = f' type="{field["type"]}"' if field["type"] in {"email", "date"} else ""
    return f'<input name="{field["name"]}"{kind}{required} />'


def react(form: Form, url: str) -> str:
    language, controls = form["language"], []
    for field in form["fields"]:
        if field["type"] != "hidden":
            label = json.dumps(field["label"], ensure_ascii=False)
            controls.append(f"      <p><label>{{{label}}} {_jsx(field, language)}</label></p>")
    if form["trap"]:
        controls.append(
            f"      <p hidden><label>{{{json.dumps(EMPTY[language], ensure_ascii=False)}}} "
            f'<input name="{form["trap"]}" tabIndex={{-1}} autoComplete="off" /></label></p>'
        )
    for consent in form["consents"]:
        text = json.dumps(consent["text"], ensure_ascii=False)
        controls.append(
            f'      <p><label><input type="checkbox" name="consent.{consent["purpose"]}" '
            f'value="{consent["sha256"]}" /> <span>{{{text}}}</span></label></p>'
        )
    notice = json.dumps(form["notice"]["text"] + " ", ensure_ascii=False)
    link = form["notice"]["url"]
    controls.append(f'      <p>{{{notice}}}<a href="{link}">{link}</a></p>')
    sent = json.dumps(SENT[language], ensure_ascii=False)
    inside = "\n".join(controls)
    return f"""import {{useRef, useState}} from "react";

{_send(form, url)}
export function LeadForm() {{
  const key = useRef(crypto.randomUUID());
  const [said, setSaid] = useState("");

  async function submit(event) {{
    event.preventDefault();
    const fields = {{}}, consents = {{}};
    let trap;
    for (const [name, value] of new FormData(event.currentTarget)) {{
      if (name.startsWith("consent.")) consents[name.slice(8)] = value;
      else if (name === {json.dumps(form["trap"])}) trap = value;
      else if (value) fields[name] = value;
    }}
    try {{
      await send(fields, consents, key.current, trap);
      setSaid({sent});
    }} catch (error) {{
      setSaid(error.message);
    }}
  }}

  return (
    <form onSubmit={{submit}} onInput={{() => {{ key.current = crypto.randomUUID(); }}}}>
{inside}
      <button>{SEND[language]}</button>
      <output>{{said}}</output>
    </form>
  );
}}"""


def _body(form: Form) -> dict[str, Any]:
    return {
        "form": form["form"],
        "form_version": form["version"],
        "language": form["language"],
        "fields": {
            field["name"]: _EXAMPLES.get(field["type"], "Anna Nowak")
            for field in form["fields"]
            if field["type"] not in {"select", "hidden"}
        },
    }


def php(form: Form, _: str) -> str:
    """On a server, with the service key."""
    fields = ", ".join(f"'{field['name']}'" for field in form["fields"])
    return f"""<?php
// The same key for the same content: pressed twice, it is one lead.
$fields = array_filter(array_intersect_key($_POST, array_flip([{fields}])), 'strlen');
$body = json_encode([
    'form' => '{form["form"]}',
    'form_version' => '{form["version"]}',
    'language' => '{form["language"]}',
    'fields' => (object) $fields,
], JSON_THROW_ON_ERROR);
$context = stream_context_create(['http' => [
    'method' => 'POST',
    'header' => [
        'Content-Type: application/json',
        'X-API-KEY: ' . getenv('OSTOJA_KEY'),
        'Idempotency-Key: ' . hash('sha256', date('Y-m-d') . $body),
    ],
    'content' => $body,
    'ignore_errors' => true,
    'timeout' => 30,
]]);
file_get_contents(getenv('OSTOJA_URL') . '/api/leads', false, $context);
$status = (int) explode(' ', $http_response_header[0] ?? ' 0')[1];
http_response_code($status === 202 ? 202 : 503);"""


def python(form: Form, _: str) -> str:
    body = json.dumps(_body(form), ensure_ascii=False, indent=4)
    return f'''import json
import os
import time
import urllib.error
import urllib.request
import uuid


def send(lead: dict) -> str:
    """Send a lead; return its id."""
    request = urllib.request.Request(
        os.environ["OSTOJA_URL"] + "/api/leads",
        json.dumps(lead).encode(),
        {{
            "Content-Type": "application/json",
            "X-API-KEY": os.environ["OSTOJA_KEY"],
            "Idempotency-Key": str(uuid.uuid4()),  # the same for all attempts
        }},
    )
    for pause in (1, 5, 25, None):
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["id"]
        except urllib.error.HTTPError as error:
            if error.code not in (409, 429, 503) or pause is None:
                raise RuntimeError(error.read().decode()) from error
        except OSError:
            if pause is None:
                raise
        time.sleep(pause)


lead = """
{body}
"""
print(send(json.loads(lead)))'''


def curl(form: Form, _: str) -> str:
    body = json.dumps(_body(form), ensure_ascii=False).replace("'", "'\\''")
    return f"""curl -sS --fail-with-body --retry 5 --retry-connrefused "$OSTOJA_URL/api/leads" \\
  -H "X-API-KEY: $OSTOJA_KEY" -H "Content-Type: application/json" \\
  -H "Idempotency-Key: fair-2026-lead-0001" \\
  -d '{body}'"""


AS = {
    "html": html,
    "fetch": fetch,
    "react": react,
    "wordpress": wordpress,
    "php": php,
    "python": python,
    "curl": curl,
}
