// What a site's own code would do with the generated types: node use.mjs URL KEY EMAIL
import type { paths } from "./schema";

declare const process: { argv: string[] };

type Alert = paths["/api/alerts"]["post"]["requestBody"]["content"]["application/json"];
type Accepted = paths["/api/alerts"]["post"]["responses"]["202"]["content"]["application/json"];
type Form = paths["/api/forms/{form}"]["get"]["responses"]["200"]["content"]["application/json"];
type Lead = paths["/api/leads"]["post"]["requestBody"]["content"]["application/json"];
type Taken = paths["/api/leads"]["post"]["responses"]["202"]["content"]["application/json"];

const [base, key, email] = process.argv.slice(2) as [string, string, string];

async function post<Body, Answer>(path: keyof paths, body: Body): Promise<Answer> {
  const answer = await fetch(base + path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-API-KEY": key, "Idempotency-Key": crypto.randomUUID() },
    body: JSON.stringify(body),
  });
  if (answer.status !== 202) throw new Error(await answer.text());
  return (await answer.json()) as Answer;
}

const alert = await post<Alert, Accepted>("/api/alerts", {
  event_type: "slack_alert", payload: { text: email, anything: { else: [1, 2] } },
});
const form = (await (await fetch(`${base}/api/forms/contact?language=pl`)).json()) as Form;
const lead = await post<Lead, Taken>("/api/leads", { form: form.form, language: form.language, fields: { email } });
console.log(JSON.stringify({ alert: alert.id, form: form.fields.map((each) => each.name), lead: lead.id }));
