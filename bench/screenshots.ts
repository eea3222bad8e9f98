import { mkdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Browser, Page } from 'playwright-core'
import type { Clock } from '../src/clock.ts'
import { linkPresets } from '../src/config/price-presets.ts'
import { artifact, image, index, type Image, noiseLayer } from '../src/cli/image.ts'
import { startTestLayover, type TestLayover } from '../test/fakes/layover.ts'
import { type FakeRegistry, startFakeRegistry } from '../test/fakes/registry.ts'
import { startBrowser } from '../test/page/browser.ts'
import { scratch } from '../test/real/harness/process.ts'

/**
 * `npm run screenshots [-- --minutes 5]`: a real run (registries that answer, one that is limited, one that is down, clients that pull), and pictures of the
 * status page into docs/images. Its clock goes twelve times as fast, so that five minutes of traffic fill an hour.
 */

const MiB = 1024 * 1024
const speed = 12
const images = join(import.meta.dirname, '../docs/images')

/** Time that flies: for what is shown and remembered, not for what waits. */
function fastClock(): Clock {
  const [wall, monotonic] = [Date.now(), performance.now()]
  const passed = (): number => Math.round((performance.now() - monotonic) * speed)
  return { now: () => wall + passed(), monotonic: () => monotonic + passed() }
}

type Wanted = { readonly upstream: string; readonly repository: string; readonly tag: string; readonly weight: number }
type Registries = Readonly<Record<string, FakeRegistry>>

/** Images that share what images share: a base, a runtime. */
function fill(registries: Registries): readonly Wanted[] {
  const debian = noiseLayer('debian', 7 * MiB)
  const node = noiseLayer('node', 11 * MiB)
  const jre = noiseLayer('jre', 14 * MiB)
  const layer = (name: string, size: number) => noiseLayer(name, Math.round(size * MiB))
  const both = (name: string, ...layers: readonly ReturnType<typeof noiseLayer>[]): Image =>
    index([
      { architecture: 'amd64', image: image({ layers: [...layers, layer(`${name}-amd64`, 2.5)] }) },
      { architecture: 'arm64', image: image({ layers: [layer(`${name}-arm64`, 9)], architecture: 'arm64' }) },
    ])
  const all: readonly (readonly [string, string, readonly string[], Image, number])[] = [
    ['docker.io', 'library/node', ['26', '26-trixie', 'latest'], both('node-26', debian, node), 8],
    ['docker.io', 'library/postgres', ['18', '18.1'], both('postgres-18', debian, layer('postgres', 12)), 5],
    ['docker.io', 'library/redis', ['8'], both('redis-8', debian, layer('redis', 1.2)), 6],
    ['docker.io', 'library/alpine', ['3', '3.22'], image({ layers: [layer('alpine', 3.6)] }), 7],
    ['docker.io', 'grafana/grafana', ['12.2.0'], image({ layers: [layer('alpine', 3.6), layer('grafana', 21)] }), 3],
    ['ghcr.io', 'acme/shop', ['2026.11.4', '2026.11.5'], both('shop', debian, node, layer('shop', 6)), 9],
    ['ghcr.io', 'acme/payments', ['2026.11.2'], both('payments', debian, jre, layer('payments', 8)), 6],
    ['ghcr.io', 'acme/search', ['2026.10.9'], both('search', debian, jre, layer('search', 19)), 4],
    ['quay.io', 'prometheus/prometheus', ['v3.7.1'], image({ layers: [layer('prometheus', 16)] }), 3],
    ['registry.k8s.io', 'pause', ['3.10'], image({ layers: [layer('pause', 0.3)] }), 6],
    ['registry.k8s.io', 'coredns/coredns', ['v1.13.0'], image({ layers: [layer('coredns', 8)] }), 3],
  ]
  for (const [upstream, repository, tags, content] of all) {
    const registry = registries[upstream]
    if (!registry) throw new Error(`no registry for ${upstream}`)
    put(registry, repository, tags, content)
    const sbom = artifact({ subject: content.top, artifactType: 'application/spdx+json', payload: '{"spdx":"2.3"}' })
    put(registry, repository, [], sbom)
  }
  return all.flatMap(([upstream, repository, tags, , weight]) =>
    tags.map(tag => ({ upstream, repository, tag, weight })),
  )
}

function put(
  registry: FakeRegistry,
  repository: string,
  tags: readonly string[],
  { blobs, manifests, top }: Image,
): void {
  for (const { bytes } of blobs) registry.addBlobTo(repository, bytes)
  for (const { bytes, mediaType } of manifests) registry.addManifest(repository, undefined, bytes, mediaType)
  for (const tag of tags) registry.addManifest(repository, tag, top.bytes, top.mediaType)
}

type Manifest = {
  readonly manifests?: readonly { readonly digest: string }[]
  readonly config?: { readonly digest: string }
  readonly layers?: readonly { readonly digest: string }[]
}

/** Pulls as a node does. What cannot be had, a node would get elsewhere. */
async function pull(url: string, { upstream, repository, tag }: Wanted, signal: AbortSignal): Promise<void> {
  const get = (path: string) => fetch(`${url}/v2/${repository}/${path}?ns=${upstream}`, { signal })
  const manifest = async (reference: string): Promise<Manifest> => {
    const answer = await get(`manifests/${reference}`)
    return answer.ok ? ((await answer.json()) as Manifest) : {}
  }
  const top = await manifest(tag)
  const { config, layers = [] } = top.manifests?.[0] ? await manifest(top.manifests[0].digest) : top
  const blobs = [...(config ? [config] : []), ...layers].map(async ({ digest }) => {
    const answer = await get(`blobs/${digest}`)
    await answer.body?.pipeTo(new WritableStream())
  })
  await Promise.all(blobs)
}

/** Clients come in waves; what is new appears one after the other. */
async function crowd(layover: TestLayover, wanted: readonly Wanted[], seconds: number): Promise<void> {
  const signal = AbortSignal.timeout(seconds * 1000)
  const begin = performance.now()
  const pulls = new Set<Promise<void>>()
  let turn = 0
  while (!signal.aborted) {
    const passed = (performance.now() - begin) / 1000 / seconds
    const known = wanted.slice(0, Math.ceil((0.35 + passed) * wanted.length))
    const busy = 0.55 + 0.45 * Math.sin(passed * 19) * Math.cos(passed * 5)
    for (let left = Math.round(busy * 3); left > 0; left--) {
      // Coprime steps: all of them come round, some more often than others.
      const each = known[(turn++ * 7) % known.length]
      if (!each || turn % 10 >= each.weight) continue
      const running = pull(layover.url, each, signal).catch(() => undefined)
      pulls.add(running)
      void running.finally(() => pulls.delete(running))
    }
    await pause(350)
  }
  await Promise.all(pulls)
}

type Slow = { readonly repository: string; readonly readers: number }

/** Large layers behind a slow link, for several nodes each: what runs while the pictures are taken. */
function addSlow(registry: FakeRegistry): readonly Slow[] {
  return (
    [
      ['acme/shop', 180, 12, 6],
      ['acme/models', 420, 3, 14],
      ['acme/search', 90, 6, 3],
    ] as const
  ).map(([repository, megabytes, readers, perSecond]) => {
    const layer = noiseLayer(`${repository}-next`, megabytes * MiB)
    put(registry, repository, ['next'], image({ layers: [layer] }))
    registry.fault(
      { method: 'GET', path: new RegExp(layer.digest), times: 20 },
      { kind: 'slow', bytesPerSecond: perSecond * MiB },
    )
    return { repository, readers }
  })
}

function pullSlow(layover: TestLayover, slow: readonly Slow[], signal: AbortSignal): void {
  for (const { repository, readers } of slow)
    for (let reader = 0; reader < readers; reader++)
      void pull(layover.url, { upstream: 'ghcr.io', repository, tag: 'next', weight: 1 }, signal).catch(() => undefined)
}

async function main(): Promise<void> {
  const { values } = parseArgs({ options: { minutes: { type: 'string', default: '5' } } })
  await using undo = new AsyncDisposableStack()
  const directory = await scratch('screenshots')
  undo.defer(() => directory.remove())
  const names = ['docker.io', 'ghcr.io', 'quay.io', 'registry.k8s.io'] as const
  const registries: Record<string, FakeRegistry> = {}
  for (const name of names) {
    const registry = await startFakeRegistry()
    registries[name] = registry
    undo.defer(() => registry.stop())
  }
  const { 'docker.io': hub, 'ghcr.io': ghcr, 'quay.io': quay } = registries
  if (!hub || !ghcr || !quay) throw new Error('the registries are missing')
  hub.settings.headers = { 'ratelimit-limit': '200;w=21600', 'ratelimit-remaining': '184;w=21600' }
  const wanted = fill(registries)
  const slow = addSlow(ghcr)
  const nat = linkPresets.get('aws-nat')
  if (!nat) throw new Error('there is no preset aws-nat')
  const pricing = { currency: 'USD', links: Object.fromEntries(names.map(name => [name, nat])) }
  const config = { pricing, storage: { maxBytes: 1536 * MiB }, prefetch: 'config' as const }
  const unused = { 'public.ecr.aws': { url: 'http://127.0.0.1:9' }, 'mcr.microsoft.com': { url: 'http://127.0.0.1:9' } }
  const clock = fastClock()
  const layover = await startTestLayover({
    upstreams: { ...registries, ...unused },
    config,
    clock,
    dataDir: directory.path,
  })
  undo.defer(() => layover.close().catch(() => undefined))

  const browser = await startBrowser()
  undo.defer(() => browser.close())
  const seconds = Number(values.minutes) * 60
  const watching = new AbortController()
  undo.defer(() => watching.abort())
  // Looked at all the time, so that every half minute of the fast clock is counted for itself.
  void watch(`${layover.adminUrl}/live`, watching.signal)
  const outage = setTimeout(() => void quay.stop(), seconds * 600)
  undo.defer(() => clearTimeout(outage))
  await crowd(layover, wanted, seconds)

  const pulling = new AbortController()
  undo.defer(() => pulling.abort())
  pullSlow(layover, slow, pulling.signal)
  await pause(3_000)
  await mkdir(images, { recursive: true })
  await takePictures(browser, layover)
}

async function watch(url: string, signal: AbortSignal): Promise<void> {
  try {
    const stream = await fetch(url, { signal })
    await stream.body?.pipeTo(new WritableStream())
  } catch {
    // It ends with the run.
  }
}

async function takePictures(browser: Browser, { adminUrl }: TestLayover): Promise<void> {
  const wide = { width: 1240, height: 900 }
  for (const [name, options] of [
    ['page-light', { colorScheme: 'light', viewport: wide }],
    ['page-dark', { colorScheme: 'dark', viewport: wide }],
    ['page-narrow', { viewport: { width: 390, height: 844 } }],
  ] as const) {
    const context = await browser.newContext(options)
    const page = await context.newPage()
    await page.goto(adminUrl)
    await page.getByText('live', { exact: true }).waitFor()
    await take(page, name)
    await context.close()
  }
  const context = await browser.newContext({ viewport: { width: 1240, height: 600 } })
  await takeOthers(await context.newPage(), adminUrl)
  await context.close()
}

async function takeOthers(page: Page, adminUrl: string): Promise<void> {
  for (const [path, name] of [
    ['/cache/docker.io', 'page-repositories'],
    ['/cache/docker.io/library/node', 'page-repository'],
    ['/cache/docker.io/library/node:26', 'page-index'],
    ['/clients?client=containerd&url=http://cache.example.com:5000', 'page-clients'],
  ] as const) {
    await page.goto(`${adminUrl}${path}`)
    await take(page, name)
  }
  await page.goto(`${adminUrl}/cache/ghcr.io/acme/shop:2026.11.5`)
  await page.getByRole('row', { name: /amd64/ }).getByRole('link').click()
  await page.getByRole('heading', { name: 'Configuration and layers' }).waitFor()
  await take(page, 'page-image')
}

async function take(page: Page, name: string): Promise<void> {
  await rm(join(images, `${name}.png`), { force: true })
  await page.screenshot({ path: join(images, `${name}.png`), fullPage: true })
  process.stdout.write(`docs/images/${name}.png\n`)
}

await main()
