// What a site's own code would do with the generated types; only checked, never run.
import type { paths } from "./schema";

type Alert = paths["/api/alerts"]["post"]["requestBody"]["content"]["application/json"];
type Accepted = paths["/api/alerts"]["post"]["responses"]["202"]["content"]["application/json"];

export async function alert(base: string, key: string, text: string): Promise<Accepted> {
  const body: Alert = { event_type: "slack_alert", payload: { text, anything: { else: [1, 2] } } };
  const answer = await fetch(`${base}/api/alerts`, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-API-KEY": key },
    body: JSON.stringify(body),
  });
  return (await answer.json()) as Accepted;
}
