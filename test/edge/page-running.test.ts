import { describe, expect, test } from 'vitest'
import type { FakeImage } from '../fakes/image.ts'
import { eventually, get, openStream, untilStored, usingLayover } from './pulling.ts'

const room = usingLayover()

async function pullImage(): Promise<FakeImage> {
  const image = room.registry.image('team/app', '1.0', { layers: 2 })
  const blobs = [image.config, ...image.layers]
  for (const path of ['manifests/1.0', ...blobs.map(({ digest }) => `blobs/${digest}`)])
    expect((await get(room.layover, `/v2/team/app/${path}`)).status).toBe(200)
  await untilStored(room.layover, blobs.length)
  return image
}

const browse = async (path: string): Promise<string> => {
  const answer = await fetch(`${room.layover.adminUrl}${path}`, { headers: { accept: 'text/html' } })
  expect([path, answer.status]).toEqual([path, 200])
  return answer.text()
}

describe('the page of a running Layover', () => {
  test('leads to what was pulled', async () => {
    const image = await pullImage()
    expect(await browse('/cache/fake.test')).toContain('href="/cache/fake.test/team/app"')
    const repository = await browse('/cache/fake.test/team/app')
    expect(repository).toContain('href="/cache/fake.test/team/app:1.0"')
    expect(repository).toContain(`href="/cache/fake.test/team/app@${image.digest}"`)
    const page = await browse('/cache/fake.test/team/app:1.0')
    for (const { digest } of [image.config, ...image.layers]) expect(page).toContain(digest)
  })

  test('T-56: looking asks no upstream and counts as nothing', async () => {
    const image = await pullImage()
    const counters = async (): Promise<string[]> =>
      (await room.layover.metrics()).split('\n').filter(line => /^layover_(?!redis|shared)\w+_total/.test(line))
    const [before, asked] = [await counters(), room.registry.requests.length]
    for (const path of [
      '/',
      '/cache',
      '/cache/fake.test',
      '/cache/fake.test/team/app',
      '/cache/fake.test/team/app:1.0',
      `/cache/fake.test/team/app@${image.digest}`,
      '/clients',
    ])
      await browse(path)
    expect(await counters()).toEqual(before)
    expect(room.registry.requests).toHaveLength(asked)
  })

  test('shows a download while it runs, and how many read along', async () => {
    const image = room.registry.image('team/big', '1', { layers: 1, layerBytes: 400_000 })
    const path = `blobs/${image.layers[0]?.digest}`
    const gate = room.registry.gate({ path: new RegExp(path), afterBytes: 100_000 })
    const clients = [
      await openStream(room.layover, `/v2/team/big/${path}`),
      await openStream(room.layover, `/v2/team/big/${path}`),
    ]
    const page = await eventually(async () => {
      const text = await browse('/')
      return text.includes('<progress max="400000" value="100000"') ? text : undefined
    })
    expect(page).toMatch(/fake\.test\/team\/big<\/a>[^]*<td class="number">2<\/td>/)
    gate.release()
    for (const client of clients) expect((await client.rest()).body).toHaveLength(400_000)
    await eventually(async () => ((await browse('/')).includes('<progress') ? undefined : true))
  })

  test('shows what upstream says of its limit', async () => {
    room.registry.settings.headers = { 'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600' }
    await pullImage()
    expect(await browse('/')).toContain('76 <span class="quiet">of 100</span>')
    const status = (await (await fetch(`${room.layover.adminUrl}/status`)).json()) as {
      upstreams: { rateLimit?: object }[]
    }
    expect(status.upstreams[0]?.rateLimit).toEqual({ limit: 100, remaining: 76 })
  })

  test('F-41: a live stream does not keep Layover from stopping', async () => {
    const answer = await fetch(`${room.layover.adminUrl}/live`)
    const ended = answer.text()
    await room.layover.drain()
    expect(await ended).toMatch(/^data: /)
  })
})
