import { once } from 'node:events'
import { createServer, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { Exchange } from '../../src/edge/exchange.ts'

test('F-17: that the client left is known also to who asks for the signal only afterwards', async () => {
  const arrived = Promise.withResolvers<{ readonly exchange: Exchange; readonly res: ServerResponse }>()
  const server = createServer((req, res) => arrived.resolve({ exchange: new Exchange(req, res), res }))
  server.listen(0, '127.0.0.1')
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const client = request({ host: '127.0.0.1', port: (server.address() as AddressInfo).port })
  client.on('error', () => undefined).end()
  const { exchange, res } = await arrived.promise
  const closed = once(res, 'close')
  client.destroy()
  await closed
  expect(exchange.signal.aborted).toBe(true)
})
