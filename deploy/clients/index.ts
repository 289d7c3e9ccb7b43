// The typed client of Ostoja's HTTP API. schema.ts is generated from /openapi.json.
import type { paths } from "./schema.js";

export type { components, paths } from "./schema.js";
export type Method = "get" | "post" | "put" | "patch" | "delete";
type Operation<P extends keyof paths, M extends Method> = M extends keyof paths[P] ? paths[P][M] : never;
type Json<T> = T extends { content: { "application/json": infer B } } ? B : undefined;
type Success = 200 | 201 | 202 | 204;
export type Body<P extends keyof paths, M extends Method> =
  Operation<P, M> extends { requestBody?: infer R } ? Json<NonNullable<R>> : undefined;
export type Answer<P extends keyof paths, M extends Method> = Operation<P, M> extends { responses: infer R }
  ? { [S in keyof R & Success]: Json<R[S]> }[keyof R & Success]
  : never;

/** What the API refused, as RFC 9457 has it. */
export class OstojaError extends Error {
  constructor(readonly status: number, readonly problem: unknown) {
    super(`Ostoja answered ${status}`);
  }
}

export interface Options<P extends keyof paths, M extends Method> {
  body?: Body<P, M>;
  /** For {names} of the path. */
  path?: Record<string, string>;
  query?: Record<string, string>;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Return a function that makes typed calls: `const call = ostoja(url, { "X-API-KEY": key })`. */
export function ostoja(url: string, headers: Record<string, string> = {}) {
  return async <P extends keyof paths, M extends Method>(
    method: M, path: P, options: Options<P, M> = {},
  ): Promise<Answer<P, M>> => {
    const filled = String(path).replace(/{(\w+)}/g, (_, name: string) => encodeURIComponent(options.path?.[name] ?? ""));
    const query = options.query ? `?${new URLSearchParams(options.query)}` : "";
    const answer = await fetch(url + filled + query, {
      method: method.toUpperCase(),
      headers: { ...(options.body === undefined ? {} : { "Content-Type": "application/json" }), ...headers, ...options.headers },
      body: options.body === undefined ? undefined : JSON.stringify(options.body),
      signal: options.signal,
    });
    const text = await answer.text();
    const said = text && answer.headers.get("Content-Type")?.includes("json") ? JSON.parse(text) : text || undefined;
    if (!answer.ok) throw new OstojaError(answer.status, said);
    return said as Answer<P, M>;
  };
}
