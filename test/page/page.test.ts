import axe from 'axe-core'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { get, openStream, untilStored } from '../edge/pulling.ts'
import { ociIndexType, type FakeImage } from '../fakes/image.ts'
import { startTestLayover, type TestLayover } from '../fakes/layover.ts'
import { type FakeRegistry, startFakeRegistry } from '../fakes/registry.ts'
import { startBrowser } from './browser.ts'

/** Long enough for a browser on a busy machine. */
const patience = 120_000

let browser: Browser
let registry: FakeRegistry
let layover: TestLayover
let image: FakeImage
const closing: (() => Promise<void>)[] = []

beforeAll(async () => {
  browser = await startBrowser()
}, patience)
afterAll(() => browser.close())

beforeEach(async () => {
  registry = await startFakeRegistry()
  layover = await startTestLayover({ upstreams: { 'docker.io': registry, 'ghcr.io': { url: 'http://127.0.0.1:9' } } })
  image = registry.image('library/alpine', '3', { layers: 2 })
  registry.addManifest(
    'library/alpine',
    'all',
    {
      schemaVersion: 2,
      mediaType: ociIndexType,
      manifests: [
        {
          mediaType: image.mediaType,
          digest: image.digest,
          size: image.manifestBytes.length,
          platform: { os: 'linux', architecture: 'amd64' },
        },
      ],
      annotations: { 'org.opencontainers.image.title': '<b onclick="alert(1)">Alpine</b>' },
    },
    ociIndexType,
  )
  for (const path of [
    'manifests/3',
    'manifests/all',
    `blobs/${image.config.digest}`,
    ...image.layers.map(({ digest }) => `blobs/${digest}`),
  ])
    await get(layover, `/v2/library/alpine/${path}`)
  await untilStored(layover, 3)
}, patience)
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
  await layover.close()
  await registry.stop()
}, patience)

/** A window of its own, and what went wrong in it: errors of scripts, refusals of the content security policy, what could not be loaded. */
async function open(path: string, options: BrowserContextOptions = {}): Promise<{ page: Page; troubles: string[] }> {
  const context = await browser.newContext(options)
  context.setDefaultTimeout(60_000)
  closing.push(() => context.close())
  const page = await context.newPage()
  const troubles: string[] = []
  page.on('console', message => {
    if (message.type() === 'error' || message.type() === 'warning') troubles.push(message.text())
  })
  page.on('pageerror', error => troubles.push(error.message))
  page.on('requestfailed', request => {
    // What a page still loads when it is left is given up.
    if (request.failure()?.errorText !== 'net::ERR_ABORTED') troubles.push(request.url())
  })
  await page.goto(`${layover.adminUrl}${path}`)
  return { page, troubles }
}

const isLive = (page: Page): Promise<void> => page.getByText('live', { exact: true }).waitFor()

const everyPage = (): readonly string[] => [
  '/',
  '/cache',
  '/cache/docker.io',
  '/cache/docker.io/library/alpine',
  '/cache/docker.io/library/alpine:all',
  `/cache/docker.io/library/alpine@${image.digest}`,
  '/cache/docker.io/library/nothing:here',
  '/clients?client=docker',
]

describe('the status page in Chromium', () => {
  test('shows what happened, and every way from page to page works', { timeout: patience }, async () => {
    const { page, troubles } = await open('/')
    await isLive(page)
    expect(await page.title()).toBe('Layover')
    await page.getByRole('region', { name: 'Upstreams' }).getByRole('link', { name: 'docker.io' }).first().click()
    await page.getByRole('link', { name: 'library/alpine' }).click()
    await page.getByRole('link', { name: 'all', exact: true }).click()
    await page
      .getByRole('row', { name: /linux\/amd64/ })
      .getByRole('link')
      .click()
    expect(await page.getByRole('heading', { level: 1 }).innerText()).toContain('library/alpine@')
    expect(await page.getByRole('row').count()).toBe(1 + 1 + image.layers.length)
    await page.getByRole('link', { name: 'Clients' }).click()
    await page.getByRole('link', { name: 'Talos' }).click()
    expect(await page.locator('pre').first().innerText()).toContain('RegistryMirrorConfig')
    await page.getByRole('link', { name: 'Cache' }).click()
    await page.getByRole('textbox', { name: 'Image' }).fill('alpine:3')
    await page.getByRole('button', { name: 'Look' }).click()
    await page.waitForURL('**/cache/docker.io/library/alpine:3')
    expect(troubles).toEqual([])
  })

  test('T-29: runs no script and breaks no rule of its policy', { timeout: patience }, async () => {
    const { page, troubles } = await open('/')
    await isLive(page)
    for (const path of everyPage()) {
      const answer = await page.goto(`${layover.adminUrl}${path}`)
      expect([path, answer?.status()]).toEqual([path, path.endsWith(':here') ? 404 : 200])
    }
    expect(await page.locator('b').count()).toBe(0)
    // That an image is not here is told as a failed request.
    expect(troubles.filter(trouble => !trouble.includes('404'))).toEqual([])
  })

  test('follows a download while it runs', { timeout: patience }, async () => {
    const big = registry.image('library/big', '1', { layers: 1, layerBytes: 2_000_000 })
    const [layer] = big.layers
    const gate = registry.gate({ path: new RegExp(layer?.digest ?? ''), afterBytes: 1_000_000 })
    const { page, troubles } = await open('/')
    await isLive(page)
    const downloads = page.locator('#downloads')
    expect(await downloads.getByRole('row').count()).toBe(0)

    const client = await openStream(layover, `/v2/library/big/blobs/${layer?.digest}`)
    await client.read(900_000)
    const row = downloads.getByRole('row', { name: /library\/big/ })
    await row.waitFor()
    const bar = row.getByRole('progressbar')
    await expect.poll(() => bar.getAttribute('value'), { timeout: 60_000 }).toBe('1000000')
    expect(await bar.getAttribute('max')).toBe('2000000')
    // Focus stays where it is while everything around it changes.
    const link = row.getByRole('link')
    await link.focus()

    const second = await openStream(layover, `/v2/library/big/blobs/${layer?.digest}`)
    await second.read(1)
    await row.getByRole('cell', { name: '2', exact: true }).waitFor()
    expect(await link.evaluate(element => element === document.activeElement)).toBe(true)

    gate.release()
    await Promise.all([client.rest(), second.rest()])
    await page.getByText('None: what clients ask for is here already').waitFor()
    expect(troubles).toEqual([])
  })

  test('stands still when it is paused, and when nobody looks', { timeout: patience }, async () => {
    const { page } = await open('/')
    await isLive(page)
    await page.getByRole('button', { name: 'Pause' }).click()
    await page.getByText('paused').waitFor()
    const answers = page.locator('#answers')
    const before = await answers.innerText()
    await get(layover, '/v2/library/alpine/manifests/3')
    await page.getByRole('button', { name: 'Go on' }).click()
    await isLive(page)
    await expect.poll(() => answers.innerText(), { timeout: 60_000 }).not.toBe(before)
  })

  test('F-41: does not keep Layover from stopping, and says that it has gone', { timeout: patience }, async () => {
    const { page } = await open('/')
    await isLive(page)
    await layover.drain()
    await expect.poll(() => page.locator('#live').innerText(), { timeout: 60_000 }).toBe('not connected')
  })

  test('works without JavaScript', { timeout: patience }, async () => {
    const { page, troubles } = await open('/', { javaScriptEnabled: false })
    expect(await page.locator('footer').innerText()).toContain('Without JavaScript this page stands still')
    expect(await page.locator('#figures').innerText()).toContain('Hit rate')
    expect(await page.getByRole('button').count()).toBe(0)
    await page.locator('summary').first().click()
    expect(await page.getByRole('columnheader', { name: 'From upstream' }).first().isVisible()).toBe(true)
    await page.getByRole('link', { name: 'Clients' }).click()
    await page.getByRole('textbox').fill('http://cache.example.com:5000')
    await page.getByRole('button', { name: 'Fill in' }).click()
    expect(await page.locator('pre').first().innerText()).toContain('cache.example.com')
    expect(troubles).toEqual([])
  })

  test.each(['light', 'dark'] as const)(
    'axe finds nothing wrong when it is %s',
    { timeout: patience },
    async colorScheme => {
      // axe is put into the page, which the policy would not have.
      const { page } = await open('/', { colorScheme, bypassCSP: true, reducedMotion: 'reduce' })
      await isLive(page)
      for (const path of everyPage()) {
        await page.goto(`${layover.adminUrl}${path}`)
        for (const summary of await page.locator('summary').all()) await summary.click()
        await page.evaluate(axe.source)
        const found = await page.evaluate(() => globalThis.axe.run())
        expect(found.violations.map(({ id, nodes }) => [path, id, nodes[0]?.html])).toEqual([])
      }
    },
  )

  test('can be used by keyboard alone', { timeout: patience }, async () => {
    const { page } = await open('/')
    await isLive(page)
    const focused = (): Promise<string> => page.evaluate(() => document.activeElement?.textContent?.trim() ?? '')
    const seen: string[] = []
    for (let press = 0; press < 6; press++) {
      await page.keyboard.press('Tab')
      seen.push(await focused())
    }
    expect(seen).toEqual(['To the content', 'Layover', 'Overview', 'Cache', 'Clients', 'Pause'])
    await page.goto(layover.adminUrl)
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await expect.poll(() => page.evaluate(() => document.activeElement?.id), { timeout: 60_000 }).toBe('main')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    expect(await page.locator('#hour-figures').getAttribute('open')).toBe('')
  })

  test('needs no room to the side on a telephone', { timeout: patience }, async () => {
    const { page } = await open('/', { viewport: { width: 360, height: 740 } })
    for (const path of everyPage()) {
      await page.goto(`${layover.adminUrl}${path}`)
      const [wide, room] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth])
      expect([path, (wide ?? 0) - (room ?? 0)]).toEqual([path, 0])
    }
  })
})

declare global {
  // What the evaluated functions see is the browser's.
  var axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> }
  var document: {
    activeElement: { id: string; textContent: string | null } | null
    documentElement: { scrollWidth: number }
  }
  var innerWidth: number
}
