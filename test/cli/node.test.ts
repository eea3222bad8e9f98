import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { installNode, type NodeInstallOptions, uninstallNode } from '../../src/cli/node.ts'
import { adviceOn, readRegistryConfig } from '../../src/cli/node/containerd-config.ts'
import { hold } from '../../src/cli/node/hold.ts'
import { sweep } from '../../src/cli/node/own-files.ts'
import { nodeClientNames } from '../../src/cli/node/wanted.ts'
import type { Terminal } from '../../src/cli/terminal.ts'
import { until } from '../real/harness/process.ts'
import { loopTexts } from './node-texts.ts'
import { layover } from './process.ts'

const url = 'http://10.0.0.5:5000'
let scratch = ''
let root = ''
beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'layover-node-'))
  root = join(scratch, 'certs.d')
})
afterEach(() => rmSync(scratch, { recursive: true, force: true }))

type Said = { readonly code: number; readonly out: string; readonly err: string }

async function said(command: (terminal: Terminal) => Promise<number>): Promise<Said> {
  const text = { out: '', err: '' }
  const code = await command({
    env: {},
    cwd: '/nowhere',
    interactive: false,
    out: each => void (text.out += each),
    err: each => void (text.err += each),
  })
  return { code, ...text }
}

const defaults = { client: 'containerd', url, upstream: [], every: '10s' }

const install = (options: Partial<NodeInstallOptions> = {}): Promise<Said> =>
  said(terminal =>
    installNode({ ...defaults, root, containerdConfig: join(scratch, 'config.toml'), ...options }, terminal),
  )
const uninstall = (options: { dryRun?: boolean; client?: string } = {}): Promise<Said> =>
  said(terminal => uninstallNode({ client: 'containerd', root, ...options }, terminal))

/** Path → text of everything under the root; a directory without anything in it ends in a slash. */
function tree(): Record<string, string> {
  if (!existsSync(root)) return {}
  const paths = readdirSync(root, { recursive: true, encoding: 'utf8' })
  return Object.fromEntries(
    paths
      .filter(path => !lstatSync(join(root, path)).isDirectory() || readdirSync(join(root, path)).length === 0)
      .map(path =>
        lstatSync(join(root, path)).isDirectory() ? [`${path}/`, ''] : [path, readFileSync(join(root, path), 'utf8')],
      ),
  )
}

function put(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true })
  writeFileSync(join(root, path), text)
}

describe('install', () => {
  test('writes _default, readable for everybody, with a line that says whose it is', async () => {
    const { code, out, err } = await install()
    expect([code, err]).toEqual([0, ''])
    expect(out).toContain(`wrote ${root}/_default/hosts.toml\n`)
    const { '_default/hosts.toml': text = '', ...rest } = tree()
    expect(rest).toEqual({})
    expect(text).toMatch(/^# Written by "layover node install"; "layover node uninstall" removes it/)
    expect(text).toContain(`[host."${url}"]\n  capabilities = ["pull", "resolve"]\n`)
    expect(statSync(join(root, '_default/hosts.toml')).mode & 0o777).toBe(0o644)
    expect(statSync(join(root, '_default')).mode & 0o777).toBe(0o755)
  })

  test('again: nothing is touched', async () => {
    await install()
    const before = statSync(join(root, '_default/hosts.toml'), { bigint: true })
    expect((await install()).out).toContain(`unchanged ${root}/_default/hosts.toml\n`)
    expect(statSync(join(root, '_default/hosts.toml'), { bigint: true })).toEqual(before)
  })

  test('with other options, its files become what is meant now, and no others of it stay', async () => {
    await install({ upstream: ['docker.io', 'quay.io'], containerdVersion: '2.2' })
    expect(Object.keys(tree()).sort()).toEqual(['docker.io/hosts.toml', 'quay.io/hosts.toml'])
    expect(tree()['quay.io/hosts.toml']).toContain('"referrers"')
    const { out } = await install({ upstream: ['quay.io'], airGapped: true })
    expect(out).toContain(`removed ${root}/docker.io/hosts.toml\nwrote ${root}/quay.io/hosts.toml\n`)
    expect(Object.keys(tree())).toEqual(['quay.io/hosts.toml'])
    expect(tree()['quay.io/hosts.toml']).toContain(`server = "${url}"\n`)
  })

  test("somebody else's files stay to the byte; the others are written; exit code 3", async () => {
    put('docker.io/hosts.toml', 'server = "https://mine.example"\r\n# no end of line')
    put('ghcr.io/ca.crt', 'certificate')
    const before = tree()
    const { code, err } = await install({ upstream: ['docker.io', 'ghcr.io', 'quay.io'] })
    expect(code).toBe(3)
    expect(err).toBe(
      `left alone ${root}/docker.io/hosts.toml: layover node install did not write it\n` +
        `left alone ${root}/ghcr.io/hosts.toml: ca.crt beside it would no longer be used\n`,
    )
    const { 'quay.io/hosts.toml': ours, ...rest } = tree()
    expect(ours).toContain(url)
    expect(rest).toEqual(before)
    await uninstall()
    expect(tree()).toEqual(before)
  })

  test('links and other things that are no plain files are somebody else’s', async () => {
    mkdirSync(join(scratch, 'elsewhere'))
    mkdirSync(join(root, 'quay.io/hosts.toml'), { recursive: true })
    symlinkSync(join(scratch, 'elsewhere'), join(root, 'docker.io'))
    const { code, err } = await install({ upstream: ['docker.io', 'quay.io'] })
    expect(code).toBe(3)
    expect(err).toContain('docker.io/hosts.toml: docker.io is no directory\n')
    expect(err).toContain('quay.io/hosts.toml: it is no regular file\n')
    expect(readdirSync(join(scratch, 'elsewhere'))).toEqual([])
  })

  test('a directory of another registry wins over _default: that is said', async () => {
    put('docker.io/hosts.toml', 'server = "https://mine.example"\n')
    expect((await install()).out).toContain('note: docker.io: has a directory of its own, which wins over _default.')
    expect((await install({ upstream: ['quay.io'] })).out).not.toContain('wins over _default. It is')
  })

  test('a root that cannot be made is said, and nothing hangs', async () => {
    // The command line says it in a line, with exit code 2.
    await expect(install({ root: '/proc/layover/certs.d' })).rejects.toThrow('/proc/layover')
  })

  test('--dry-run says it and does nothing', async () => {
    const { code, out } = await install({ dryRun: true })
    expect(code).toBe(0)
    expect(out).toContain(`would write ${root}/_default/hosts.toml\n`)
    expect(out).toContain(`  [host."${url}"]\n`)
    expect(existsSync(root)).toBe(false)
    await install()
    const before = tree()
    expect((await uninstall({ dryRun: true })).out).toBe(`would remove ${root}/_default/hosts.toml\n`)
    expect(tree()).toEqual(before)
  })

  test('a registry of one’s own needs no configuration on the node; one that looks like a typing error is asked about', async () => {
    const { code, out } = await install({ upstream: ['registry.example.com:5000', 'qay.io'] })
    expect(code).toBe(0)
    expect(Object.keys(tree()).sort()).toEqual(['qay.io/hosts.toml', 'registry.example.com:5000/hosts.toml'])
    expect(out).toContain(
      'note: qay.io is not built in: it must be an upstream of the Layover at --url, unless quay.io was meant.\n',
    )
    expect(out).toContain('note: registry.example.com:5000 is not built in')
  })

  test.each<[Partial<NodeInstallOptions>, string]>([
    [{ client: 'k3s' }, '--client: expected one of containerd, docker, podman, crio'],
    [{ url: '10.0.0.5:5000' }, '--url: http:// or https:// is missing'],
    [{ upstream: ['../etc'] }, '--upstream: "../etc" is no host'],
    [{ upstream: ['_default'] }, '--upstream: "_default" is no host'],
    [{ every: 'often' }, '--every: expected a duration such as 10s, got "often"'],
    [{ url: 'https://cache.example.com', resolve: true }, '--resolve: is for http alone'],
  ])('%j is refused and writes nothing', async (options, problem) => {
    const { code, err } = await install(options)
    expect([code, err]).toEqual([1, expect.stringContaining(problem)])
    expect(existsSync(root)).toBe(false)
  })

  test('--resolve writes an address that needs no name service', async () => {
    await install({ url: 'http://localhost:5000', resolve: true })
    expect(tree()['_default/hosts.toml']).toMatch(/\[host\."http:\/\/(127\.0\.0\.1|\[::1\]):5000"\]/)
  })

  test('podman and CRI-O: one file beside the others', async () => {
    put('10-mine.conf', 'unqualified-search-registries = []\n')
    const { code, out } = await install({ client: 'podman', upstream: ['docker.io'] })
    expect(code).toBe(0)
    expect(out).toContain(`wrote ${root}/50-layover.conf\n`)
    expect(tree()['50-layover.conf']).toContain('prefix = "docker.io"')
    await uninstall({ client: 'podman' })
    expect(tree()).toEqual({ '10-mine.conf': 'unqualified-search-registries = []\n' })
  })

  test('docker: only certs.d is written, and it is said where daemon.json comes from', async () => {
    const { out } = await install({ client: 'docker' })
    expect(Object.keys(tree())).toEqual(['_default/hosts.toml'])
    expect(out.match(/daemon\.json/g)).toHaveLength(1)
    expect(out).toContain('layover mirror docker prints what belongs there')
  })

  test.each(nodeClientNames)(
    '%s: what was written is taken back, and the notes say what falls back to what',
    async client => {
      const { code, out } = await install({ client })
      expect([code, out]).toEqual([0, expect.stringContaining('note: Fallback')])
      await uninstall({ client })
      expect(tree()).toEqual({})
    },
  )
})

describe('uninstall', () => {
  test('takes back exactly what was written: directories that were there stay', async () => {
    mkdirSync(join(root, 'quay.io'), { recursive: true })
    put('ghcr.io/hosts.toml', 'server = "https://mine.example"\n')
    const before = tree()
    await install({ upstream: ['docker.io', 'quay.io'] })
    const { code, out } = await uninstall()
    expect([code, out]).toEqual([0, `removed ${root}/docker.io/hosts.toml\nremoved ${root}/quay.io/hosts.toml\n`])
    expect(tree()).toEqual(before)
  })

  test('a directory that it made and somebody else uses since stays, with their files', async () => {
    await install({ upstream: ['docker.io'] })
    put('docker.io/notes.txt', 'mine')
    await uninstall()
    expect(tree()).toEqual({ 'docker.io/notes.txt': 'mine' })
  })

  test('a file that somebody made their own by taking the first line out stays', async () => {
    await install()
    const own = (tree()['_default/hosts.toml'] ?? '').replace(/^.*\n/, '')
    put('_default/hosts.toml', own)
    expect((await install()).code).toBe(3)
    await uninstall()
    expect(tree()).toEqual({ '_default/hosts.toml': own })
  })

  test('without anything to remove it says so', async () => {
    expect(await uninstall()).toEqual({
      code: 0,
      out: `nothing of layover node install is under ${root}\n`,
      err: '',
    })
  })
})

test('a look that fails is told once, and the next one follows: what was written stays', async () => {
  const stop = new AbortController()
  const answers = ['no address', 'no address', 'well', 'no address', 'stop']
  const err: string[] = []
  await hold({
    signal: stop.signal,
    everyMs: 1,
    again: async () => {
      const answer = answers.shift()
      if (answer === 'no address') throw new Error(answer)
      if (answer === 'stop') stop.abort()
    },
    terminal: { err: text => void err.push(text) },
  })
  expect([answers, err]).toEqual([[], ['layover: no address\n']])
})

describe('as a program', () => {
  const main = join(import.meta.dirname, '../../src/main.ts')

  test('what cannot be written is exit code 2, with the reason', async () => {
    writeFileSync(root, 'a file where the directory should be')
    const { code, err } = await layover(['node', 'install', '--url', url, '--root', root], { cwd: scratch })
    expect([code, err]).toEqual([2, expect.stringContaining('ENOTDIR')])
  })

  test.each([
    ['leaves them', [], true],
    ['takes them back when it was told to', ['--take-back'], false],
  ])('--hold writes again what somebody removed, and at SIGTERM %s', async (_, flags, stays) => {
    const child = spawn(
      process.execPath,
      [main, 'node', 'install', '--url', url, '--root', root, '--hold', '--every', '20ms', ...flags],
      { cwd: scratch, env: { TMPDIR: scratch }, stdio: ['ignore', 'pipe', 'pipe'] },
    )
    try {
      const file = join(root, '_default/hosts.toml')
      await until(() => existsSync(file))
      const text = readFileSync(file, 'utf8')
      rmSync(join(root, '_default'), { recursive: true })
      await until(() => existsSync(file))
      expect(readFileSync(file, 'utf8')).toBe(text)
      // Somebody who wants their own settings is told once and left alone.
      writeFileSync(file, '# mine\n')
      let err = ''
      child.stderr.on('data', (chunk: Buffer) => void (err += chunk.toString()))
      await until(() => err.includes('left alone'))
      expect(readFileSync(file, 'utf8')).toBe('# mine\n')
      rmSync(file)
      await until(() => existsSync(file))
      child.kill('SIGTERM')
      const [code] = (await once(child, 'close')) as [number | null]
      expect(code).toBe(0)
      expect(err.match(/left alone/g)).toHaveLength(1)
      expect(existsSync(file)).toBe(stays)
      expect(readdirSync(root).filter(name => name.startsWith('.'))).toEqual([])
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('uninstall --hold takes back, and stays until SIGTERM', async () => {
    await install()
    const child = spawn(process.execPath, [main, 'node', 'uninstall', '--root', root, '--hold'], {
      cwd: scratch,
      env: { TMPDIR: scratch },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    try {
      const [said] = (await once(child.stdout, 'data')) as [Buffer]
      expect(said.toString()).toBe(`removed ${root}/_default/hosts.toml\n`)
      expect(tree()).toEqual({})
      expect(child.exitCode).toBeNull()
      child.kill('SIGTERM')
      expect(await once(child, 'close')).toEqual([0, null])
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('who reads at any moment, and after kill -9, sees the old file, the new one or none, and never a directory without its file', async () => {
    const isWhole = (text: string): boolean =>
      text.startsWith('# Written by') && loopTexts.some(whole => text.endsWith(`\n${whole}`))
    const file = join(root, 'docker.io/hosts.toml')
    for (let round = 0; round < 6; round++) {
      const child = spawn(process.execPath, [join(import.meta.dirname, 'node-loop.ts'), root], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await once(child.stdout, 'data')
      await until(() => existsSync(root))
      // Each round ends it somewhere else in its loop.
      const seen = Array.from({ length: 20 + 7 * round }, () => readIfThere(file))
      child.kill('SIGKILL')
      await once(child, 'close')
      expect(seen.filter(text => text !== undefined && !isWhole(text)).map(text => text?.length)).toEqual([])
      const left = Object.entries(tree()).filter(([path]) => !path.startsWith('.layover-'))
      expect(left.filter(([path, text]) => path !== 'docker.io/hosts.toml' || !isWhole(text))).toEqual([])
      sweep(root)
      expect(readdirSync(root).filter(name => name !== 'docker.io')).toEqual([])
    }
  })
})

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

describe('containerd’s config.toml', () => {
  const path = '/etc/containerd/config.toml'
  const look = (text: string | undefined, containerdVersion?: string): string =>
    adviceOn({ path, text, root: '/etc/containerd/certs.d', containerdVersion })

  test.each([
    ['1.x', '[plugins."io.containerd.grpc.v1.cri".registry]\n  config_path = "/etc/containerd/certs.d"\n'],
    [
      '2.x',
      "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d:/etc/docker/certs.d'\n",
    ],
    [
      '1.x, indented',
      '  [plugins."io.containerd.grpc.v1.cri".registry] # here\n\tconfig_path="/etc/containerd/certs.d"',
    ],
  ])('%s: config_path is there', (_, text) => {
    expect(look(text)).toBe(`${path} sets config_path to /etc/containerd/certs.d: containerd reads what was written.`)
  })

  test('another table’s config_path, a comment or an empty one are none', () => {
    const text = `# config_path = "/etc/containerd/certs.d"
[plugins."io.containerd.grpc.v1.cri".registry]
  config_path = ""
[plugins."io.containerd.transfer.v1.local"]
  config_path = "/etc/containerd/certs.d"
`
    expect(readRegistryConfig(text).configPath).toBeUndefined()
    expect(look(text)).toContain(
      'config.toml does not set config_path: containerd 2.2 and later read certs.d by themselves',
    )
  })

  test('what keeps it from being read is named: another directory, mirrors beside it, imports', () => {
    const table = '[plugins."io.containerd.grpc.v1.cri".registry]\n'
    expect(look(`${table}config_path = "/opt/certs.d"\n`)).toContain('reads that, not /etc/containerd/certs.d')
    expect(
      look(
        `${table}config_path = "/etc/containerd/certs.d"\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n`,
      ),
    ).toContain('Remove registry.mirrors')
    expect(look('imports = ["/etc/containerd/conf.d/*.toml"]\n')).toContain('It imports other files: look there too.')
  })

  test('from 2.2 on nothing is needed; without the file both ways are said', () => {
    expect(look(undefined, '2.2')).toBe('containerd 2.2 reads certs.d by itself.')
    expect(look('version = 3\n', '2.10')).toBe('containerd 2.10 reads certs.d by itself.')
    expect(look('version = 3\n', '2.1')).toContain('set config_path = "/etc/containerd/certs.d"')
    expect(look(undefined)).toContain('config.toml is not there')
  })
})
