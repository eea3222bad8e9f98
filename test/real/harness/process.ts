import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'

/** A program that runs beside the test. Whoever started it ends it. */
export type Running = {
  readonly pid: number
  /** Everything it wrote to stdout and stderr so far. */
  output(): string
  /** Resolves when it is gone. SIGTERM first, SIGKILL after 5 s; `SIGKILL` asks nobody. */
  end(signal?: 'SIGTERM' | 'SIGKILL'): Promise<void>
}

export type Surroundings = { readonly cwd?: string; readonly env?: Readonly<Record<string, string>> }
export type Finished = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** All that programs inherit: proxies, colours and settings of whoever runs the tests would change what they do. */
const inherited = Object.fromEntries(['PATH', 'HOME'].map(name => [name, process.env[name]]))

/** Starts a long-running program; resolves when `ready` says so, rejects with its output when it ends before or 50 s passed: several start at once on two busy cores. */
export async function start(options: {
  readonly command: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  readonly ready: () => Promise<boolean>
}): Promise<Running> {
  const child = spawn(options.command, options.args, {
    env: { ...inherited, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const chunks: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk))
  const output = (): string => Buffer.concat(chunks).toString()
  let failure: Error | undefined
  child.on('error', error => {
    failure = explained(error, options.command)
  })
  try {
    await until(() => {
      if (failure !== undefined) throw failure
      if (hasEnded(child)) throw new Error(`it ended with ${child.exitCode ?? child.signalCode}`)
      return options.ready()
    }, 50_000)
  } catch (cause) {
    child.kill('SIGKILL')
    throw new Error(`${options.command} did not get ready: ${output()}`, { cause })
  }
  if (child.pid === undefined) throw new Error(`${options.command} has no process id`)
  return { pid: child.pid, output, end: signal => end(child, signal ?? 'SIGTERM') }
}

function explained(error: Error, command: string): Error {
  return 'code' in error && error.code === 'ENOENT'
    ? new Error(`${command} is not installed: .ci/setup installs it, or says how`, { cause: error })
    : error
}

const hasEnded = (child: ChildProcess): boolean => child.exitCode !== null || child.signalCode !== null

async function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (hasEnded(child)) return
  // 'close' comes after the last byte of output, so a log that is read afterwards is complete.
  const gone = once(child, 'close')
  child.kill(signal)
  const killer = setTimeout(() => child.kill('SIGKILL'), 5000)
  await gone
  clearTimeout(killer)
}

/** Runs a program to its end. Never rejects for its exit code; see {@link runOk}. */
export async function run(
  command: string,
  args: readonly string[],
  { cwd, env = {} }: Surroundings = {},
): Promise<Finished> {
  const child = spawn(command, args, { cwd, env: { ...inherited, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  await once(child, 'close').catch((error: Error) => {
    throw explained(error, command)
  })
  return {
    code: child.exitCode ?? -1,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  }
}

/** Like {@link run}, gives stdout, and rejects with what the program said when it failed. */
export async function runOk(
  command: string,
  args: readonly string[],
  surroundings: Surroundings = {},
): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, surroundings)
  if (code !== 0) throw new Error(`${command} ${args.join(' ')} ended with ${code}\n${stdout}${stderr}`)
  return stdout
}

/** Asks again every 20 ms until the answer is true; rejects after `limitMs`. */
export async function until(condition: () => boolean | Promise<boolean>, limitMs = 20_000): Promise<void> {
  const deadline = performance.now() + limitMs
  while (!(await condition())) {
    if (performance.now() > deadline)
      throw new Error(`it did not become true within ${limitMs} ms: ${condition.toString()}`)
    await delay(20)
  }
}

/** A directory of its own directly under the system's temporary one (socket paths are short), and how to remove it. */
export async function scratch(name: string): Promise<{ readonly path: string; remove(): Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), `layover-${name}-`))
  return { path, remove: () => rm(path, { recursive: true, force: true }) }
}
