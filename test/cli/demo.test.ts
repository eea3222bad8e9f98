import { readdir } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { describe, expect, it } from 'vitest'
import { type DemoOptions, runDemo } from '../../src/cli/demo.ts'

const KiB = 1024
const small = { clients: 3, layers: 2, layerBytes: 300 * KiB, bytesPerSecond: 8 * KiB * KiB }

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

const leftovers = async (): Promise<readonly string[]> =>
  (await readdir(tmpdir())).filter(name => name.startsWith('layover-demo-'))

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

  it('leaves no directory behind', async () => {
    const before = await leftovers()
    await demo()
    expect(await leftovers()).toEqual(before)
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
    const before = await leftovers()
    const { code, text } = await demo({ signal: AbortSignal.abort(new Error('interrupted')) })
    expect(code).toBe(1)
    expect(text).toContain('NOT  interrupted')
    expect(await leftovers()).toEqual(before)
  })
})
