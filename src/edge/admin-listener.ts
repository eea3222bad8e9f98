import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener } from '@hono/node-server'
import type { Hono } from 'hono'

/** The admin app as a Node request listener. The adapter answers errors by itself, so nobody waits for its promise. */
export function adminListener(app: Hono): (req: IncomingMessage, res: ServerResponse) => void {
  const listener = getRequestListener(app.fetch)
  return (req, res) => void listener(req, res)
}
