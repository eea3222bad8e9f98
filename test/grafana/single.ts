import { fakeImage } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { eventually, openStream } from '../edge/pulling.ts'
import { cloudPrices } from './prices.ts'
import { ask, blobPath, manifestPath, pull, together } from './pulling.ts'

/** One Layover on its own disk, and what happens to such a one in a year. */
export type Single = {
  readonly layover: TestLayover
  /** Another day of all of it, the first or the second: its content is new. */
  day(day: number): Promise<void>
  close(): Promise<void>
}

const budget = 700_000
const layer = 60_000

/** Registries: one that wants a login and tells its limit, one whose tags are asked for each time, one for each day that goes down for good, one that answers 429. */
export async function startSingle(): Promise<Single> {
  const [hub, quay, busy, ...down] = await Promise.all([
    startFakeRegistry({ auth: 'bearer' }),
    startFakeRegistry(),
    startFakeRegistry(),
    startFakeRegistry(),
    startFakeRegistry(),
  ])
  busy.fault({ times: 1e6 }, { kind: 'status', status: 429, headers: { 'retry-after': '1' } })
  hub.settings.headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' }
  const layover = await startTestLayover({
    upstreams: {
      'hub.test': hub,
      'quay.test': { url: quay.url, tagTtlMs: 0 },
      ...Object.fromEntries(down.map(({ url }, index) => [`down-${index + 1}.test`, { url, tagTtlMs: 0 }])),
      'busy.test': busy,
    },
    config: {
      pricing: cloudPrices('hub.test', 'quay.test'),
      storage: { maxBytes: budget },
      fills: {
        finishWithinBytes: 0,
        finishFromShare: 1,
        abandonMs: 1,
        nearBytes: 1024 * 1024,
        maxSideReads: 2,
        maxAttempts: 2,
        earlyRanges: false,
      },
    },
  })
  return {
    layover,
    async day(day) {
      hub.revokeTokens()
      await morning(layover, hub, day)
      await trouble(layover, quay, day)
      await outage(layover, down[day - 1], `down-${day}.test`)
    },
    async close() {
      await layover.close()
      await Promise.all([hub.stop(), quay.stop(), busy.stop()])
    },
  }
}

/** Pulls, warm pulls, two at once, lists, a client that leaves, more images than there is room for, a layer larger than all the room. */
async function morning(layover: TestLayover, hub: FakeRegistry, day: number): Promise<void> {
  const shared = hub.image('app', `day-${day}`, { layerBytes: layer, layers: 1, seed: `shared ${day}` })
  const [{ digest } = { digest: '' }] = shared.layers
  await ask(layover, manifestPath('hub.test', 'app', `day-${day}`))
  const open = () => openStream(layover, blobPath('hub.test', 'app', digest))
  await together(hub, digest, open, open)
  await pull(layover, 'hub.test', 'app', shared, `day-${day}`)
  await pull(layover, 'hub.test', 'app', shared, `day-${day}`)
  await ask(layover, '/v2/hub.test/app/tags/list')
  await ask(layover, `/v2/hub.test/app/referrers/${shared.digest}`)
  await ask(layover, manifestPath('hub.test', 'app', 'no-such-tag'))
  for (let more = 0; more < 6; more++) {
    const image = hub.image('app', `more-${more}`, { layerBytes: layer, seed: `${day}.${more}` })
    await pull(layover, 'hub.test', 'app', image, image.digest)
  }
  const large = hub.image('large', 'latest', { layerBytes: 2 * budget, layers: 1, seed: `large ${day}` })
  await pull(layover, 'hub.test', 'large', large, large.digest)
  await leave(layover, hub, day)
}

async function leave(layover: TestLayover, hub: FakeRegistry, day: number): Promise<void> {
  const image = hub.image('left', 'latest', { layerBytes: layer, layers: 1, seed: `left ${day}` })
  const [{ digest } = { digest: '' }] = image.layers
  await ask(layover, manifestPath('hub.test', 'left', image.digest))
  const before = await layover.metric('layover_client_aborts_total')
  const gate = hub.gate({ method: 'GET', path: new RegExp(digest), afterBytes: 20_000 })
  const stream = await openStream(layover, blobPath('hub.test', 'left', digest))
  await stream.read(1_000)
  stream.leave()
  await eventually(
    async () => ((await layover.metric('layover_client_aborts_total')) > before ? true : undefined),
    20_000,
  )
  gate.release()
}

/** Tags that stay, move and go; a download that breaks once, one that breaks for good, one of wrong bytes; a private image. */
async function trouble(layover: TestLayover, quay: FakeRegistry, day: number): Promise<void> {
  const manifest = manifestPath('quay.test', 'app', 'moving')
  for (const version of [1, 1, 2]) {
    quay.image('app', 'moving', { layerBytes: layer, seed: `${day} version ${version}` })
    await ask(layover, manifest)
  }
  quay.removeTag('app', 'moving')
  await ask(layover, manifest)

  const image = quay.image('app', 'latest', { layerBytes: layer, layers: 3, seed: `trouble ${day}` })
  const [broken, lost, wrong] = image.layers
  await ask(layover, manifestPath('quay.test', 'app', 'latest'))
  const path = (digest = ''): RegExp => new RegExp(digest)
  quay.fault({ method: 'GET', path: path(broken?.digest) }, { kind: 'cut', at: 30_000, how: 'fin' })
  quay.fault({ method: 'GET', path: path(lost?.digest), times: 99 }, { kind: 'cut', at: 0, how: 'fin' })
  if (wrong) quay.corrupt(wrong.digest, fakeImage({ layerBytes: layer, seed: 'other' }).layers[0]?.bytes ?? wrong.bytes)
  for (const { digest } of image.layers) await ask(layover, blobPath('quay.test', 'app', digest))
  quay.clearFaults()

  quay.fault({ path: /secret/, times: 9 }, { kind: 'status', status: 403 })
  await ask(layover, manifestPath('quay.test', 'secret', 'latest'))
  quay.clearFaults()
}

/** A registry that goes down: what is cached comes stale, what is not does not come. One that is asked too much. */
async function outage(layover: TestLayover, registry: FakeRegistry | undefined, upstream: string): Promise<void> {
  const image = registry?.image('app', 'latest', { layerBytes: layer, seed: upstream })
  if (image) await pull(layover, upstream, 'app', image)
  await registry?.stop()
  for (const repository of ['app', 'app', 'never', 'never', 'never'])
    await ask(layover, manifestPath(upstream, repository, 'latest'))
  // The first one is still down on the second day, and still asked for.
  await ask(layover, manifestPath('down-1.test', 'never', 'latest'))
  await ask(layover, manifestPath('busy.test', 'app', 'latest'))
}
