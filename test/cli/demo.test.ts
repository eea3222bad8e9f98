import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type DemoOptions, runDemo } from '../../src/cli/demo.ts'

const KiB = 1024
const small = { clients: 3, layers: 2, layerBytes: 300 * KiB, bytesPerSecond: 8 * KiB * KiB }

// The demo runs in this process, so what it takes from the environment is set here: no proxy, and a temporary directory that no other demo uses.
const proxies = ['http_proxy', 'https_proxy', 'no_proxy', 'HTTP_PROXY', 'HTTPS_PROXY', 'NO_PROXY']
let temporary = ''
beforeEach(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'layover-demo-test-'))
  vi.stubEnv('TMPDIR', temporary)
  for (const name of proxies) vi.stubEnv(name, undefined)
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(temporary, { recursive: true, force: true })
})

async function demo(options: DemoOptions = {}, isTTY = false): Promise<{ code: number; text: string }> {
  let text = ''
  const output = {
    isTTY,
    write(chunk: string) {
      text += chunk
    },
  }
  const code = await runDemo({ ...small, output, environment: {}, ...options })
  return { code, text }
}

const leftovers = (): Promise<readonly string[]> => readdir(temporary)

describe('layover demo', () => {
  it('shows one download for three clients at once, none when warm, and pulls without a registry', async () => {
    const { code, text } = await demo()
    expect(text).toContain('ok   the registry was asked once for each of 3 blobs')
    expect(text).toContain('ok   warm pulls cost it no byte')
    expect(text).toContain('ok   9 pulls got every byte, also without a registry')
    expect(text).toContain('ok   every manifest and blob hashed to its digest')
    expect(text).toMatch(/saved \d+\.\d MiB of \d+\.\d MiB/)
    expect(text).not.toContain('NOT')
    expect(code).toBe(0)
  })

  it('--stay: the page of the run is there until it is ended, with what was saved', async () => {
    const stop = new AbortController()
    let text = ''
    const { promise: shown, resolve } = Promise.withResolvers<string>()
    const output = {
      write(chunk: string) {
        text += chunk
        const url = /(http:\/\/\S+)\/ shows what was saved/.exec(text)?.[1]
        if (url !== undefined) resolve(url)
      },
    }
    const running = runDemo({ ...small, output, environment: {}, stay: true, signal: stop.signal })
    const answer = await fetch(await shown, { headers: { accept: 'text/html' } })
    const page = await answer.text()
    stop.abort(new Error('interrupted'))
    expect([answer.status, page.includes('Hit rate'), await running]).toEqual([200, true, 0])
    expect(await leftovers()).toEqual([])
  })

  it('leaves no directory behind', async () => {
    expect(tmpdir()).toBe(temporary)
    await demo()
    expect(await leftovers()).toEqual([])
  })

  it('writes no escape sequence and no carriage return into a pipe', async () => {
    const { text } = await demo()
    expect(text).not.toMatch(/[\x1B\r]/)
  })

  it('moves and colours on a terminal, and only moves where NO_COLOR is set', async () => {
    const coloured = await demo({}, true)
    expect(coloured.text).toContain('\x1B[32mok')
    const plain = await demo({ environment: { NO_COLOR: '1' } }, true)
    expect(plain.text).not.toContain('\x1B[')
    expect(plain.text).toContain('\r')
  })

  it('ends with another code than 0, and cleans up, when it cannot show what it promises', async () => {
    const { code, text } = await demo({ signal: AbortSignal.abort(new Error('interrupted')) })
    expect(code).toBe(1)
    expect(text).toContain('NOT  interrupted')
    expect(await leftovers()).toEqual([])
  })
})
