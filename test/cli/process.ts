import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

export type Finished = { readonly code: number | null; readonly out: string; readonly err: string }
type Options = { readonly cwd: string; readonly env?: Readonly<Record<string, string>> }

/** Runs the real command line in a process of its own, and waits for its end. It inherits no variable of this one. */
export async function layover(args: readonly string[], options: Options): Promise<Finished> {
  const child = start(args, options)
  const [out, err] = [collect(child.stdout), collect(child.stderr)]
  const [code] = (await once(child, 'close')) as [number | null]
  return { code, out: out(), err: err() }
}

export type Served = {
  /** The line that says that it is ready. */
  readonly ready: Readonly<Record<string, unknown>>
  readonly lines: readonly Readonly<Record<string, unknown>>[]
  signal(name: NodeJS.Signals): void
  /** Resolves when a line with this message was written. */
  until(message: RegExp): Promise<void>
  readonly ended: Promise<number | null>
  [Symbol.asyncDispose](): Promise<void>
}

/** `layover serve`, until it is ready. Rejects with what it said when it ends before. */
export async function serve(args: readonly string[], options: Options): Promise<Served> {
  const child = start(['serve', ...args], options)
  const err = collect(child.stderr)
  const ended = once(child, 'close').then(([code]) => code as number | null)
  const lines: Record<string, unknown>[] = []
  const waiting = new Set<{ message: RegExp; resolve: () => void }>()
  createInterface({ input: stream(child.stdout) }).on('line', line => {
    lines.push(JSON.parse(line) as Record<string, unknown>)
    for (const each of waiting) if (each.message.test(String(lines.at(-1)?.['msg']))) each.resolve()
  })
  const until = async (message: RegExp): Promise<void> => {
    if (lines.some(line => message.test(String(line['msg'])))) return
    await new Promise<void>((resolve, reject) => {
      waiting.add({ message, resolve })
      void ended.then(code => reject(new Error(`ended with ${code} before ${String(message)}: ${err()}`)))
    })
  }
  await until(/^ready$/)
  return {
    ready: lines.find(line => line['msg'] === 'ready') ?? {},
    lines,
    signal: name => void child.kill(name),
    until,
    ended,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL')
      await ended
    },
  }
}

function start(args: readonly string[], { cwd, env }: Options): ChildProcess {
  // The same Node that runs the tests.
  return spawn(process.execPath, [main, ...args], {
    cwd,
    env: { TMPDIR: cwd, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
}

function collect(from: ChildProcess['stdout']): () => string {
  let text = ''
  stream(from)
    .setEncoding('utf8')
    .on('data', (chunk: string) => {
      text += chunk
    })
  return () => text
}

function stream<T>(from: T | null): T {
  if (from === null) throw new Error('the process has no pipe')
  return from
}
