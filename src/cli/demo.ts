import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startLayover } from '../compose.ts'
import { loadConfig } from '../config/load.ts'
import { createSilentLog } from '../log/log.ts'
import { type Pull, pullImage } from './demo-client.ts'
import { type DemoRegistry, startDemoRegistry } from './demo-registry.ts'
import { type Claim, type DemoScreen, openScreen, type Phase, type ScreenOutput } from './demo-screen.ts'
import { type Image, image, noiseLayer } from './image.ts'

export type DemoOptions = {
  /** Default: standard output. */
  readonly output?: ScreenOutput
  /** Where NO_COLOR is looked up. */
  readonly environment?: Readonly<Record<string, string | undefined>>
  readonly clients?: number
  readonly layers?: number
  readonly layerBytes?: number
  /** Rate of the link to the demo's registry. */
  readonly bytesPerSecond?: number
  /** Ends the demo early; everything is cleaned up all the same. */
  readonly signal?: AbortSignal
  /** Afterwards the page of the run is there to be looked at, until `signal` or Ctrl-C. */
  readonly stay?: boolean
}

type Stage = {
  readonly screen: DemoScreen
  readonly registry: DemoRegistry
  /** Where the clients pull from. */
  readonly url: string
  readonly clients: number
  readonly image: Image
  readonly signal: AbortSignal
}

const MiB = 1024 * 1024
const repository = 'demo/image'
const tag = 'latest'
// Far above what it takes: a demo that hangs says so instead.
const limitMs = 60_000

/**
 * Shows in a few seconds, without a network, what Layover does: a registry behind a narrow link, Layover, and eight clients that pull one image
 * cold, warm, and with the registry gone. Every byte is hashed, and nothing is left behind. Gives the exit code: 0 when every promise held.
 */
export async function runDemo(options: DemoOptions = {}): Promise<number> {
  const { clients = 8, layers = 4, layerBytes = 8 * MiB, bytesPerSecond = 32 * MiB } = options
  const screen = openScreen(options.output ?? process.stdout, options.environment ?? process.env)
  const demoImage = image({ layers: Array.from({ length: layers }, (_, n) => noiseLayer(`demo-${n}`, layerBytes)) })
  await using undo = new AsyncDisposableStack()
  undo.defer(() => screen.close())
  const interrupted = options.signal ?? interruption(undo)
  const signal = AbortSignal.any([AbortSignal.timeout(limitMs), interrupted])
  const dataDir = await mkdtemp(join(tmpdir(), 'layover-demo-'))
  undo.defer(() => rm(dataDir, { recursive: true, force: true }))
  const registry = await startDemoRegistry({ repository, tag, image: demoImage, bytesPerSecond })
  undo.defer(() => registry.stop())
  const layover = await startLayover({ config: demoConfig(dataDir, registry.url), log: createSilentLog() })
  undo.defer(() => layover.close({ now: true }))

  screen.intro({ clients, layers, bytesPerSecond, imageBytes: sizeOf(demoImage) })
  try {
    const code = await perform({ screen, registry, url: layover.registryUrl, clients, image: demoImage, signal })
    if (options.stay === true) {
      screen.page(layover.adminUrl)
      if (!interrupted.aborted) await once(interrupted, 'abort')
    }
    return code
  } catch (error) {
    screen.failure(error)
    return 1
  }
}

/** Aborts on Ctrl-C, so that an impatient visitor leaves nothing behind either. */
function interruption(undo: AsyncDisposableStack): AbortSignal {
  const controller = new AbortController()
  const abort = (): void => controller.abort(new Error('interrupted'))
  for (const name of ['SIGINT', 'SIGTERM'] as const) {
    process.once(name, abort)
    undo.defer(() => void process.off(name, abort))
  }
  return controller.signal
}

async function perform(stage: Stage): Promise<number> {
  const { screen, registry, clients } = stage
  const cold = await play(stage, 'cold', `${clients} clients at once, nothing is cached yet`)
  const warm = await play(stage, 'warm', 'the same again')
  await registry.stop()
  const alone = await play(stage, 'registry stopped', 'the same again, with the registry stopped')
  const phases = [cold, warm, alone]
  const claims = judge(phases, stage.image)
  screen.table(phases)
  screen.claims(claims)
  return claims.every(({ held }) => held) ? 0 : 1
}

function demoConfig(dataDir: string, url: string): ReturnType<typeof loadConfig> {
  const settings = {
    listen: '127.0.0.1:0',
    admin: '127.0.0.1:0',
    dataDir,
    log: { level: 'silent' },
    // A tag that is never fresh: what is served without the registry is served because it is gone, not because nobody asked yet.
    upstreams: { 'registry.demo': { default: true, url, insecure: true, tagTtl: '1ms' } },
  }
  // JSON is YAML.
  return loadConfig({ file: 'demo.yaml', readFile: () => JSON.stringify(settings), env: {} })
}

async function play(
  { screen, registry, url, clients, image: { blobs, manifests }, signal }: Stage,
  name: string,
  story: string,
): Promise<Phase> {
  const imageBytes = sizeOf({ blobs, manifests })
  const progress = screen.progress(story, clients * imageBytes)
  const before = { ...registry.ledger }
  const start = performance.now()
  const pull = (): Promise<Pull> => pullImage({ url, repository, tag, signal, onBytes: size => progress.add(size) })
  const pulls = await Promise.all(Array.from({ length: clients }, pull))
  const ms = performance.now() - start
  progress.done(ms)
  const { ledger } = registry
  return {
    name,
    ms,
    clients,
    servedBytes: sum(pulls.map(({ bytes }) => bytes)),
    servedRequests: sum(pulls.map(({ requests }) => requests)),
    firstByteMs: median(pulls.flatMap(({ firstByteMs }) => firstByteMs)),
    wrong: pulls.flatMap(({ wrong }) => wrong),
    upstreamBytes: ledger.bytes - before.bytes,
    upstreamGets: ledger.blobGets + ledger.manifestGets - before.blobGets - before.manifestGets,
    upstreamBlobGets: ledger.blobGets - before.blobGets,
  }
}

function judge(phases: readonly Phase[], { blobs, manifests, top }: Image): readonly Claim[] {
  const [cold, ...later] = phases
  const expected = sizeOf({ blobs, manifests })
  const pulls = sum(phases.map(({ clients }) => clients))
  return [
    {
      text: `the registry was asked once for each of ${blobs.length} blobs`,
      held: cold?.upstreamBlobGets === blobs.length,
    },
    {
      text: `and sent every byte of the image once`,
      // A HEAD has no body; the manifest may be asked for by tag and again by digest.
      held: cold !== undefined && cold.upstreamBytes >= expected && cold.upstreamBytes <= expected + top.bytes.length,
    },
    { text: 'warm pulls cost it no byte', held: later.every(({ upstreamBytes }) => upstreamBytes === 0) },
    {
      text: `${pulls} pulls got every byte, also without a registry`,
      held: sum(phases.map(({ servedBytes }) => servedBytes)) === pulls * expected,
    },
    { text: 'every manifest and blob hashed to its digest', held: phases.every(({ wrong }) => wrong.length === 0) },
  ]
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0)

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0
}

/** Bytes that one client receives. */
function sizeOf({ blobs, manifests }: Pick<Image, 'blobs' | 'manifests'>): number {
  return sum([...blobs, ...manifests].map(({ bytes }) => bytes.length))
}
