import { randomBytes } from 'node:crypto'
import type { Clock } from '../../clock.ts'
import { isLoopback } from '../../config/address.ts'
import type { ReplicaConfig } from '../../config/config.ts'
import { describeError } from '../../log/redact.ts'
import { digestOf } from '../../oci/digest.ts'
import { createPeer } from '../../upstream/peer.ts'
import { type ReplicaSecret, readReplicaSecret } from '../../upstream/replica-signature.ts'
import { UpstreamError } from '../../upstream/upstream.ts'
import type { Check, CheckContext } from './check.ts'

/** Whether other replicas would reach this one under `replica.url`, and be known by the secret. */
export function replicaCheck(config: ReplicaConfig, clock: Clock): Check {
  return { name: 'replica url', run: context => examine(context, config, clock) }
}

async function examine(context: CheckContext, config: ReplicaConfig, clock: Clock): Promise<void> {
  let secret: ReplicaSecret
  try {
    secret = await readReplicaSecret(config.secretFile)
  } catch (error) {
    return context.fail(describeError(error), 'make one with: openssl rand -hex 32, and give the same to all replicas')
  }
  const { hostname, host } = new URL(config.url)
  if (isLoopback(hostname.replace(/^\[|\]$/g, '')))
    context.warn(
      `${host} is loopback: other machines find themselves there`,
      "set replica.url to this pod's own address",
    )
  context.step(`asking ${host}`)
  await ask(context, { url: config.url, host, secret, clock })
}

type Question = { readonly url: string; readonly host: string; readonly secret: ReplicaSecret; readonly clock: Clock }

/** A digest that nobody has: a Layover that knows our secret answers that it does not hold it. */
async function ask(context: CheckContext, { url, host, secret, clock }: Question): Promise<void> {
  const peer = createPeer({ url, secret, clock })
  try {
    const { body } = await peer.open(digestOf(randomBytes(32)), 0, context.signal)
    body.destroy()
    context.fail(`${host} claims to hold what nobody has: no Layover answers there`, urlAdvice)
  } catch (error) {
    context.signal.throwIfAborted()
    if (!(error instanceof UpstreamError)) throw error
    judge(context, error, host)
  } finally {
    await peer.close()
  }
}

function judge(context: CheckContext, error: UpstreamError, host: string): void {
  if (error.failure === 'notFound') return context.ok(`${host} answers and knows our secret`)
  if (error.failure === 'denied')
    return context.fail(
      `${host} does not know our secret, or its clock is more than a minute off`,
      'give all replicas the same replica.secretFile, and synchronise their clocks (NTP)',
    )
  if (error.reason === 'connect')
    return context.warn(
      `${host}: no Layover runs there now`,
      'start it and run this again; if it runs, replica.url is not where it listens',
    )
  if (error.reason === 'dns') return context.fail(`${host}: its name does not resolve`, urlAdvice)
  context.fail(`${host}: ${describeError(error)}`, urlAdvice)
}

const urlAdvice = "set replica.url to this pod's own address and the port of replica.listen, never to a load balancer"
