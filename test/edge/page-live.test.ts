import { describe, expect, onTestFinished, test } from 'vitest'
import { LivePage } from '../../src/edge/page/live.ts'
import { raw } from '../../src/edge/page/html.ts'
import { eventually } from './pulling.ts'
import { createPage } from './page-setup.ts'

type Event = Readonly<Record<string, string>>

/** Reads the events of one viewer, one by one. */
function viewerOf(stream: ReadableStream<Uint8Array> | undefined) {
  if (stream === undefined) throw new Error('no stream')
  const reader = stream.getReader()
  return {
    /** Undefined: the stream has ended. */
    async next(): Promise<Event | undefined> {
      const { value, done } = await reader.read()
      if (done) return undefined
      const text = Buffer.from(value).toString()
      expect(text).toMatch(/^data: .*\n\n$/)
      return JSON.parse(text.slice(6)) as Event
    },
    leave: () => reader.cancel(),
  }
}

function createLive(
  options: { readonly everyMs?: number; readonly maxViewers?: number; readonly render?: () => string } = {},
) {
  const state = { renderings: 0, errors: [] as unknown[] }
  const { render = () => String(state.renderings), ...rest } = options
  const live = new LivePage({
    everyMs: 10,
    ...rest,
    render: async () => {
      state.renderings++
      return { count: raw(render()), still: raw('<b>still</b>') }
    },
    onError: error => state.errors.push(error),
  })
  onTestFinished(() => live.close())
  return { live, state }
}

describe('the live page', () => {
  test('begins with everything, then sends what changed', async () => {
    const viewer = viewerOf(createLive().live.open())
    expect(await viewer.next()).toEqual({ count: '1', still: '<b>still</b>' })
    expect(await viewer.next()).toEqual({ count: '2' })
  })

  test('renders once for all viewers, and brings who comes later up to date', async () => {
    const { live, state } = createLive()
    const first = viewerOf(live.open())
    await first.next()
    const others = [viewerOf(live.open()), viewerOf(live.open())]
    for (const other of others) expect(await other.next()).toHaveProperty('still')
    const before = state.renderings
    for (const viewer of [first, ...others]) await viewer.next()
    // Three viewers and one tick, or two when the machine was slow.
    expect(state.renderings - before).toBeLessThan(3)
  })

  test('renders nothing when nobody looks', async () => {
    const { live, state } = createLive()
    expect(state.renderings).toBe(0)
    const viewer = viewerOf(live.open())
    await viewer.next()
    await viewer.leave()
    expect(live.viewers).toBe(0)
    const before = state.renderings
    const again = viewerOf(live.open())
    expect(await again.next()).toEqual({ count: String(before + 1), still: '<b>still</b>' })
  })

  test('lets a viewer go who takes nothing, and goes on for the others', async () => {
    const { live } = createLive({ everyMs: 1 })
    live.open()
    const awake = viewerOf(live.open())
    expect(live.viewers).toBe(2)
    await eventually(async () => {
      await awake.next()
      return live.viewers === 1 ? true : undefined
    }, 20_000)
    expect(await awake.next()).toBeDefined()
  })

  test('goes on after a rendering that failed', async () => {
    let isBroken = true
    const { live, state } = createLive({
      render: () => {
        if (isBroken) throw new Error('broken')
        return 'whole'
      },
    })
    const viewer = viewerOf(live.open())
    await eventually(() => (state.errors.length > 1 ? true : undefined))
    isBroken = false
    expect(await viewer.next()).toEqual({ count: 'whole', still: '<b>still</b>' })
  })

  test('T-34: has room for so many viewers and no more', () => {
    const { live } = createLive({ maxViewers: 2 })
    expect([live.open(), live.open(), live.open()].map(stream => stream !== undefined)).toEqual([true, true, false])
  })

  test('F-41: ends when Layover begins to stop, and is not begun again', async () => {
    const { browse, ending } = createPage()
    const answer = await browse('/live')
    expect(answer.headers.get('content-type')).toContain('text/event-stream')
    const viewer = viewerOf(answer.body ?? undefined)
    expect(Object.keys((await viewer.next()) ?? {})).toContain('downloads')
    ending.abort()
    while ((await viewer.next()) !== undefined);
    expect((await browse('/live')).status).toBe(503)
  })

  test('HEAD opens no stream', async () => {
    const { app } = createPage()
    const answer = await app.request('http://localhost/live', { method: 'HEAD', headers: { host: 'localhost' } })
    expect([answer.status, await answer.text()]).toEqual([200, ''])
  })
})
