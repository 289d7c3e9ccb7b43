// What a company's own program would do with the built client: node use.mjs URL KEY EMAIL
import { ostoja } from "./typescript/dist/index.js";

declare const process: { argv: string[] };

const [base, key, email] = process.argv.slice(2) as [string, string, string];
const call = ostoja(base, { "X-API-KEY": key });
const once = () => ({ headers: { "Idempotency-Key": crypto.randomUUID() } });

const alert = await call("post", "/api/alerts", {
  body: { event_type: "slack_alert", payload: { text: email, anything: { else: [1, 2] } } }, ...once(),
});
const form = await call("get", "/api/forms/{form}", { path: { form: "contact" }, query: { language: "pl" } });
const lead = await call("post", "/api/leads", {
  body: { form: form.form, language: form.language, fields: { email } }, ...once(),
});
// @ts-expect-error an alert has no such field
alert.nonsense;
console.log(JSON.stringify({ alert: alert.id, form: form.fields.map((each) => each.name), lead: lead.id }));
