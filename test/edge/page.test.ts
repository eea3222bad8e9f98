import { describe, expect, test } from 'vitest'
import type { RunningFill } from '../../src/cache/running-fill.ts'
import { digestOf, type Digest } from '../../src/oci/digest.ts'
import type { ManifestRecord } from '../../src/store/stores.ts'
import { fakeImage, ociIndexType } from '../fakes/image.ts'
import { catalogOf, createPage, emptyCatalog } from './page-setup.ts'

const digest = digestOf(Buffer.from('a blob'))
const fill = (change: Partial<RunningFill> = {}): RunningFill => ({
  digest,
  upstream: 'docker.io',
  repository: 'library/alpine',
  size: 4 * 1024 * 1024,
  received: 1024 * 1024,
  readers: 3,
  began: 'upstream',
  startedAt: Date.UTC(2026, 0, 1) - 10_000,
  ...change,
})

describe('the first page', () => {
  test('is a page for browsers, and the plain index for everyone else', async () => {
    const { app, browse } = createPage()
    const page = await browse('/')
    expect(page.headers.get('content-type')).toContain('text/html')
    expect(page.headers.get('vary')).toBe('accept')
    expect(await page.text()).toContain('<!doctype html>')
    for (const accept of [undefined, '*/*', 'application/json']) {
      const plain = await app.request('http://localhost/', accept === undefined ? {} : { headers: { accept } })
      expect(plain.headers.get('content-type')).toContain('text/plain')
      expect(await plain.text()).toContain('/metrics')
    }
  })

  test('leaves /metrics, /livez, /readyz and /status as they are', async () => {
    const { browse } = createPage()
    for (const [path, type] of [
      ['/metrics', 'text/plain'],
      ['/livez', 'text/plain'],
      ['/readyz', 'text/plain'],
      ['/status', 'application/json'],
    ] as const) {
      const answer = await browse(path, { host: 'a.stranger.example' })
      expect([path, answer.status, answer.headers.get('content-type')?.startsWith(type)]).toEqual([path, 200, true])
    }
  })

  test('shows what was saved, also when more was fetched than served', async () => {
    const { metrics, text } = createPage()
    const served = {
      upstream: 'docker.io',
      kind: 'blob',
      method: 'GET',
      status: 200,
      firstByteSeconds: 0,
      seconds: 0,
      aborted: false,
    } as const
    for (let pull = 0; pull < 3; pull++)
      metrics.request({ ...served, outcome: pull === 0 ? 'joined' : 'hit', bytes: 1024 ** 3 })
    metrics.request({ ...served, outcome: 'fill', bytes: 1024 ** 3 })
    // A ping is no answer with content.
    metrics.request({ ...served, upstream: 'none', kind: 'base', outcome: 'hit', bytes: 2 })
    metrics.upstreamBytes('docker.io', 'blob', 1024 ** 3)
    const page = await text('/')
    expect(page).toContain('75.0\u00a0%')
    expect(page).toContain('3 of 4 answers')
    expect(page).toContain('4.00\u00a0GiB served − 1.00\u00a0GiB fetched')
    metrics.upstreamBytes('docker.io', 'blob', 5 * 1024 ** 3)
    expect(await text('/')).toContain('−2.00\u00a0GiB')
  })

  test('shows money where links have a price, net of what Layover costs', async () => {
    const savings = {
      since: Date.UTC(2026, 0, 1),
      currency: 'USD',
      servedBytes: 10,
      upstreamBytes: 4,
      savedBytes: 6,
      pullsAvoided: 1234,
      money: { gross: 12.5, cost: 0.25, net: 12.25 },
      upstreams: [],
    }
    const page = await createPage({ status: { savings } }).text('/')
    expect(page).toContain('$12.25')
    expect(page).toContain('$12.50 of traffic − $0.25 of its own')
    expect(page).toContain('since <time datetime="2026-01-01T00:00:00.000Z">')
    const unpriced = await createPage({ status: { savings: { ...savings, money: undefined } } }).text('/')
    expect(unpriced).toContain('1,234')
    expect(unpriced).toContain('no link has a price')
  })

  test('shows running downloads with progress, rate and readers', async () => {
    const page = await createPage({
      fills: [fill(), fill({ digest: digestOf(Buffer.from('b')), size: undefined, readers: 0 })],
    }).text('/')
    expect(page).toContain('<progress max="4194304" value="1048576"')
    expect(page).toContain('1.00\u00a0MiB of 4.00\u00a0MiB')
    expect(page).toContain('102\u00a0KiB/s')
    expect(page).toContain('1.00\u00a0MiB of an unknown size')
  })

  test('shows no more of a thousand downloads than fits', async () => {
    const fills = Array.from({ length: 1000 }, (_, n) => fill({ digest: digestOf(Buffer.from(String(n))) }))
    const page = await createPage({ fills }).text('/')
    expect(page.match(/<progress/g)).toHaveLength(20)
    expect(page).toContain('and 980 more')
  })

  test('draws traffic with a text alternative and a table', async () => {
    const { metrics, text, clock } = createPage()
    metrics.upstreamBytes('docker.io', 'blob', 3 * 1024 ** 2)
    await text('/')
    clock.advance(30 * 60_000)
    const page = await text('/')
    expect(page).toMatch(
      /<svg role="img" aria-label="Last hour: 0\u00a0B to clients, at most [^"]*; 3.00\u00a0MiB from upstream/,
    )
    expect(page).toContain('<caption class="hidden">Last hour</caption>')
    expect(page).toContain('not running')
  })

  test('shows Redis and the bucket where there are some', async () => {
    const without = await createPage().text('/')
    expect(without).not.toContain('Redis')
    expect(without).not.toContain('Bucket')
    const page = await createPage({
      status: { redis: { state: 'down', refusals: [] }, shared: { pendingUploads: 7, pendingBytes: 1024 } },
    }).text('/')
    expect(page).toContain('does not answer')
    expect(page).toContain('7 uploads wait')
  })

  test('shows upstreams in trouble first, with their last error and what is left of their limit', async () => {
    const none = { servedBytes: 0, upstreamBytes: 0, savedBytes: 0, upstreamRequests: 1 }
    const page = await createPage({
      status: {
        upstreams: [
          { ...none, name: 'docker.io', state: 'closed', rateLimit: { limit: 100, remaining: 76 } },
          { ...none, name: 'quay.io', state: 'closed', lastError: 'dns', unreachableSince: '2026-01-01T00:00:00.000Z' },
          {
            ...none,
            name: 'registry.example.com:5000',
            state: 'open',
            lastError: 'dns',
            unreachableSince: '2026-01-01T00:00:00.000Z',
          },
        ],
      },
    }).text('/')
    expect(page.indexOf('/cache/registry.example.com:5000')).toBeLessThan(page.indexOf('/cache/docker.io'))
    expect(page).toContain('<code>dns</code>')
    // It failed the last time, and is asked again all the same.
    expect(page).toContain('<span class="state fair">does not answer</span>')
    expect(page.match(/<span class="state good">answers<\/span>/g)).toHaveLength(1)
    expect(page).toContain('76 <span class="quiet">of 100</span>')
  })

  test('is small: everything that a browser loads for it stays under 50 kB', async () => {
    const fills = Array.from({ length: 20 }, (_, n) => fill({ digest: digestOf(Buffer.from(String(n))) }))
    const { browse } = createPage({ fills })
    const page = await (await browse('/')).text()
    const assets = [...page.matchAll(/(?:href|src)="(\/assets\/[^"]+)"/g)].map(([, path]) => path ?? '')
    expect(assets).toHaveLength(3)
    const sizes = await Promise.all(assets.map(async path => (await (await browse(path)).arrayBuffer()).byteLength))
    expect(sizes.reduce((sum, size) => sum + size, Buffer.byteLength(page))).toBeLessThan(50_000)
  })
})

describe('other people’s words', () => {
  const evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>\u2028'
  /** Elements that are none of ours: ours has one script, by its address, and no picture. */
  const foreign = (page: string): readonly string[] => page.match(/<script(?! src=")|<img|<b>/g) ?? []

  test('T-29: are escaped wherever they stand', async () => {
    const manifest = {
      schemaVersion: 2,
      mediaType: ociIndexType,
      artifactType: evil,
      manifests: [
        {
          mediaType: evil,
          digest,
          size: 5,
          platform: { os: evil, architecture: evil, variant: evil },
          annotations: { [evil]: evil },
        },
        { mediaType: evil, digest, size: 5, annotations: { 'vnd.docker.reference.type': evil } },
      ],
      annotations: { [evil]: evil, long: 'x'.repeat(10_000) },
    }
    const bytes = Buffer.from(JSON.stringify(manifest))
    const record: ManifestRecord = { digest: digestOf(bytes), mediaType: ociIndexType, bytes }
    const catalog = catalogOf([record], {
      repositories: async () => ({ entries: [evil], next: evil }),
      tags: async () => ({
        entries: [{ tag: evil, digest, mediaType: evil, size: 1, checkedAt: Number.NaN }],
        next: evil,
      }),
      manifests: async () => ({ entries: [{ digest, mediaType: evil, size: 1, lastUsed: 1e300 }], next: evil }),
      holders: async () => ({ repositories: new Map([[digest, [evil]]]), complete: false }),
    })
    const { text, errors } = createPage({ catalog, fills: [fill({ repository: evil })], status: { version: evil } })
    for (const path of ['/', '/cache/docker.io', '/cache/docker.io/a', `/cache/docker.io/a@${record.digest}`]) {
      const page = await text(path)
      expect([path, foreign(page)]).toEqual([path, []])
      expect(page).toContain('&lt;script&gt;alert(1)')
    }
    expect(errors).toEqual([])
    expect(await text(`/cache/docker.io/a@${record.digest}`)).not.toContain('x'.repeat(400))
  })

  test('T-29: also those of a query and of a path', async () => {
    const { text } = createPage()
    const query = encodeURIComponent(evil)
    for (const path of [
      `/cache?image=${query}`,
      `/clients?url=${query}&client=${query}`,
      `/clients?url=${encodeURIComponent('http://a"onfocus=alert(1)')}`,
      `/cache/docker.io/${query}`,
      `/cache/docker.io/a?tag=${query}&digest=${query}`,
      `/cache/docker.io?after=${query}`,
      `/cache/${query}`,
      '/cache/%',
    ])
      expect([path, foreign(await text(path))]).toEqual([path, []])
  })

  test('T-29: a password in a URL does not come back', async () => {
    const page = await createPage().text(`/clients?url=${encodeURIComponent('http://user:hunter2@cache:5000')}`)
    expect(page).not.toContain('hunter2')
    expect(page).toContain('a user name or password cannot be part of it')
  })
})

test.each(['http://a;reboot', 'http://a$(reboot)', 'http://a`reboot`:5000', 'http://a&reboot', 'http://a"b'])(
  'T-33: %s is not put into what people copy into a shell or a file',
  async url => {
    const page = await createPage().text(`/clients?url=${encodeURIComponent(url)}`)
    expect(page).toContain('host or port is wrong')
    expect(page).toContain('layover mirror containerd --url http://cache.example.com:5000')
  },
)

test.each(['http://cache.example.com.:5000', 'http://[fd00::1]:5000', 'http://köln.example'])(
  'a URL such as %s is one',
  async url => {
    const page = await createPage().text(`/clients?url=${encodeURIComponent(url)}`)
    expect(page).toContain(`layover mirror containerd --url ${new URL(url).origin}`)
  },
)

test('T-33: a URL that is cut in the middle of a character is a URL all the same', async () => {
  const { browse, errors } = createPage()
  const long = `http://cache.example.com:5000/${'a'.repeat(300)}`.slice(0, 299)
  const page = await browse(`/clients?url=${encodeURIComponent(`${long}\u{1F433}`)}`)
  expect([page.status, errors]).toEqual([200, []])
})

describe('in a browser', () => {
  const pages = ['/', '/live', '/cache', '/cache/docker.io', '/cache/nobody', '/clients']

  test('nothing but its own two files runs, and nobody frames it', async () => {
    const { app } = createPage()
    for (const path of pages) {
      const { headers } = await app.request(`http://localhost${path}`, {
        method: path === '/live' ? 'HEAD' : 'GET',
        headers: { accept: 'text/html', host: '127.0.0.1:5001' },
      })
      const policy = headers.get('content-security-policy') ?? ''
      expect([path, policy]).toEqual([path, expect.stringContaining("default-src 'none'")])
      expect(policy).toContain("frame-ancestors 'none'")
      expect(policy).not.toContain('unsafe')
      expect(headers.get('x-frame-options')).toBe('DENY')
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('referrer-policy')).toBe('no-referrer')
      expect(headers.get('cache-control')).toBe('no-store')
    }
  })

  test('no style and no script stands in a page', async () => {
    const { text } = createPage({ fills: [fill()] })
    for (const path of ['/', '/cache', '/cache/docker.io', '/clients'])
      expect(await text(path)).not.toMatch(/ style=|<style| on[a-z]+="|javascript:|<script(?! src)/)
  })

  test('T-56: a name that a stranger pointed at loopback gets nothing (DNS rebinding)', async () => {
    const { browse } = createPage()
    for (const host of ['evil.example:5001', 'localhost.evil.example', '127.0.0.1.evil.example', ''])
      expect([host, (await browse('/cache', { host })).status]).toEqual([host, 421])
    for (const host of ['localhost:5001', '127.0.0.1:5001', '[::1]:5001', 'LOCALHOST', '10.1.2.3'])
      expect([host, (await browse('/cache', { host })).status]).toEqual([host, 200])
  })

  test.each(['LOCALHOST', '0:0:0:0:0:0:0:1', '::ffff:127.0.0.1'])(
    'T-56: nor where loopback is written as %s',
    async host => {
      const { browse } = createPage({ parts: { admin: { host, port: 5001 } } })
      expect((await browse('/cache', { host: 'evil.example:5001' })).status).toBe(421)
      expect((await browse('/cache', { host: 'localhost:5001' })).status).toBe(200)
    },
  )

  test('any name is fine where an operator opened the listener to others', async () => {
    const { browse } = createPage({ parts: { admin: { host: '0.0.0.0', port: 5001 } } })
    expect((await browse('/', { host: 'layover.ops.example' })).status).toBe(200)
  })

  test('T-56: other sites may link to it and load none of it', async () => {
    const { browse } = createPage()
    const load = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'no-cors' }
    for (const path of pages) expect([path, (await browse(path, load)).status]).toEqual([path, 403])
    expect((await browse('/', { ...load, 'sec-fetch-mode': 'navigate' })).status).toBe(200)
    expect((await browse('/', { 'sec-fetch-site': 'same-origin', 'sec-fetch-mode': 'cors' })).status).toBe(200)
  })

  test('assets are kept for ever under a name of their bytes', async () => {
    const { text, browse } = createPage()
    const [, path = ''] = /href="(\/assets\/[^"]+\.css)"/.exec(await text('/')) ?? []
    const first = await browse(path)
    expect(first.headers.get('cache-control')).toContain('immutable')
    const etag = first.headers.get('etag') ?? ''
    expect((await browse(path, { 'if-none-match': etag })).status).toBe(304)
    expect((await browse('/assets/0000-page.css')).status).toBe(404)
    expect((await browse('/assets/..%2fadmin.ts')).status).toBe(404)
  })
})

describe('what is cached', () => {
  test('pages through repositories, tags and manifests by where the page before ended', async () => {
    const asked: unknown[] = []
    const catalog = {
      ...emptyCatalog,
      repositories: async (_upstream: string, page: { readonly after?: string | undefined }) => {
        asked.push(page.after)
        return { entries: ['library/alpine'], next: 'library/alpine', cut: true }
      },
      tags: async (_upstream: string, _repository: string, page: { readonly after?: string | undefined }) => {
        asked.push(page.after)
        return { entries: [{ tag: '3', digest, mediaType: ociIndexType, size: 1, checkedAt: 0 }], next: '3' }
      },
    }
    const { text } = createPage({ catalog })
    const first = await text('/cache/docker.io')
    expect(first).toContain('href="/cache/docker.io?after=library%2Falpine"')
    expect(first).toContain('something may be missing')
    const repository = await text('/cache/docker.io/library/alpine?tag=2')
    expect(repository).toContain('href="/cache/docker.io/library/alpine:3"')
    expect(repository).toContain('href="/cache/docker.io/library/alpine?tag=3"')
    expect(asked).toEqual([undefined, '2'])
  })

  test('an upstream with a port has a page of its own', async () => {
    expect((await createPage().browse('/cache/registry.example.com:5000')).status).toBe(200)
  })

  test('shows an image: which layers are here, and which other repositories hold them', async () => {
    const image = fakeImage({ layers: 2 })
    const record = { digest: image.digest, mediaType: image.mediaType, bytes: image.manifestBytes }
    const [here, elsewhere] = image.layers
    const { text } = createPage({
      catalog: catalogOf([record], {
        tag: async (_upstream, _repository, tag) => ({
          tag,
          digest: image.digest,
          mediaType: image.mediaType,
          size: 1,
          checkedAt: 0,
        }),
        holders: async () => ({
          repositories: new Map<Digest, string[]>([[here?.digest ?? digest, ['library/other']]]),
          complete: true,
        }),
      }),
      blobs: new Map([[here?.digest ?? digest, { size: here?.size ?? 0, lastUsed: Date.UTC(2026, 0, 1) - 90_000 }]]),
    })
    const page = await text('/cache/docker.io/library/alpine:3')
    expect(page).toContain(image.digest)
    expect(page).toContain(elsewhere?.digest)
    expect(page).toContain('1\u00a0min ago')
    expect(page).toContain('<a href="/cache/docker.io/library/other">library/other</a>')
    expect(page).toContain('19.8\u00a0KiB, 9.77\u00a0KiB of it on this disk')
  })

  test('an image that is not here, and what is no image, are 404', async () => {
    const { browse } = createPage()
    for (const path of [
      'library/alpine:3',
      `library/alpine@${digest}`,
      'library/alpine@sha256:1',
      'UPPER',
      '../x',
      'a:b:c',
      '',
    ])
      expect([path, (await browse(`/cache/docker.io/${path}`)).status]).toEqual([path, 404])
    expect((await browse('/cache/nobody')).status).toBe(404)
  })

  test('finds an image by the name that people give it', async () => {
    const { browse } = createPage()
    for (const [image, to] of [
      ['alpine', '/cache/docker.io/library/alpine'],
      ['docker.io/library/alpine:3', '/cache/docker.io/library/alpine:3'],
      [`registry.example.com:5000/app:1@${digest}`, `/cache/registry.example.com:5000/app@${digest}`],
    ] as const) {
      const answer = await browse(`/cache?image=${encodeURIComponent(image)}`)
      expect([image, answer.status, answer.headers.get('location')]).toEqual([image, 303, to])
    }
    expect((await browse('/cache?image=nobody.example/app')).status).toBe(400)
  })

  test('F-59: says so when the store of records cannot be read, and keeps the reason to the log', async () => {
    const broken = { ...emptyCatalog, repositories: () => Promise.reject(new Error('redis://user:hunter2@redis')) }
    const { browse, errors } = createPage({ catalog: broken })
    const answer = await browse('/cache/docker.io')
    expect(answer.status).toBe(503)
    expect(await answer.text()).not.toContain('hunter2')
    expect(errors).toHaveLength(1)
  })
})

describe('how to point a client here', () => {
  test.each(['containerd', 'docker', 'podman', 'crio', 'k3s', 'rke2', 'talos', 'buildkit', 'kind'])(
    '%s gets the files that the command line prints',
    async client => {
      const page = await createPage().text(`/clients?client=${client}&url=http://cache.example.com:5000`)
      expect(page).toMatch(/<pre tabindex="0"><code>[^<]*cache\.example\.com/)
      expect(page).toContain(`layover mirror ${client} --url http://cache.example.com:5000`)
    },
  )

  test('without a URL it is the name of this machine, with a note', async () => {
    const page = await createPage().text('/clients')
    expect(page).toContain('[host.&quot;http://cache-1:5000&quot;]')
    expect(page).toContain('cache-1 is the name of this machine')
  })

  test('an address that nobody can dial is refused', async () => {
    expect(await createPage().text('/clients?url=http://0.0.0.0:5000')).toContain('nobody can dial 0.0.0.0')
  })
})
