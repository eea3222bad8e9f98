import { createServer } from 'node:net'
import { request } from 'undici'
import { formatAddress, isUnspecified } from '../../config/address.ts'
import type { Address, Config } from '../../config/config.ts'
import { describeSystemError } from '../../config/secrets.ts'
import type { Check, CheckContext } from './check.ts'

/** Whether the addresses that `serve` listens on are free, each a check of its own. */
export function listenerChecks(config: Config): readonly Check[] {
  const { listen, admin, replica } = config
  const listeners: readonly (readonly [string, string, Address])[] = [
    ['registry address', '--listen', listen],
    ['admin address', '--admin', admin],
    ...(replica ? [['replica address', 'replica.listen', replica.listen] as const] : []),
  ]
  return listeners.map(([name, flag, address]) => ({
    name,
    run: context => examine(context, { flag, address, admin }),
  }))
}

type Question = { readonly flag: string; readonly address: Address; readonly admin: Address }

async function examine(context: CheckContext, { flag, address, admin }: Question): Promise<void> {
  const shown = formatAddress(address)
  context.step(`listening on ${shown}`)
  const error = await listenError(address)
  if (error === undefined) return context.ok(`${shown} is free`)
  if (error.code === 'EADDRINUSE') {
    if (await isLayover(admin, context.signal)) return context.ok(`${shown} is in use: a Layover runs here already`)
    return context.fail(
      `${shown} is in use by another program`,
      `stop that program, or choose another address with ${flag}`,
    )
  }
  const advice: Readonly<Record<string, string>> = {
    EACCES: `this user may not listen there: choose a port above 1023 with ${flag}`,
    EADDRNOTAVAIL: `this machine has no such address: choose one that it has, or 0.0.0.0 for all, with ${flag}`,
    ENOTFOUND: `its name cannot be resolved: choose an address with ${flag}`,
  }
  context.fail(
    `cannot listen on ${shown}: ${describeSystemError(error)}`,
    advice[error.code ?? ''] ?? `choose another with ${flag}`,
  )
}

function listenError({ host, port }: Address): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', error => resolve(error))
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)))
  })
}

/** True when the configured admin address answers as a Layover does. */
async function isLayover({ host, port }: Address, signal: AbortSignal): Promise<boolean> {
  const dialled = isUnspecified(host) ? (host === '::' ? '::1' : '127.0.0.1') : host
  try {
    const { statusCode, body } = await request(`http://${formatAddress({ host: dialled, port })}/`, {
      signal,
      headersTimeout: 2000,
      bodyTimeout: 2000,
      reset: true,
    })
    const chunks: Buffer[] = []
    for await (const chunk of body) {
      chunks.push(chunk as Buffer)
      if (chunks.length > 16) break
    }
    return statusCode === 200 && Buffer.concat(chunks).toString('utf8').startsWith('Layover\n')
  } catch {
    return false
  }
}
