import { chmod, chown, copyFile, cp, link, mkdir, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { runOk, scratch } from '../real/harness/process.ts'
import { buildContext, type Copy, type Dockerfile } from './dockerfile.ts'
import { repository } from './settings.ts'

/** The files of the image, without an engine: what the Dockerfile copies, and Node with the libraries that it is linked to. There is no shell in it. */
export type RootFilesystem = {
  readonly path: string
  /** The command that runs `args` in it with these variables alone, without capabilities; read-only but for one directory. */
  command(args: readonly string[], env: Readonly<Record<string, string>>, way?: Way): Program
  remove(): Promise<void>
}

/** Default: as the image's user, with /data. */
export type Way = {
  readonly user?: string
  /** A directory outside, and where it is inside. */
  readonly writable?: readonly [outside: string, inside: string]
}
type Program = { readonly command: string; readonly args: readonly string[] }

/** Does what the stages of the Dockerfile do, in a temporary directory; `npm ci` included, from npm's cache where it is there. */
export async function buildRootFilesystem(dockerfile: Dockerfile): Promise<RootFilesystem> {
  if (process.getuid?.() !== 0) throw new Error('mounts and another user are needed: run these tests as root')
  const directory = await scratch('image')
  const [builder, image] = [join(directory.path, 'builder'), join(directory.path, 'image')]
  for (const each of [directory.path, builder, image]) await mkdir(each, { recursive: true, mode: 0o755 })
  await chmod(directory.path, 0o755)
  const [first = [], second = []] = dockerfile.copies

  await copyAll(first, { from: builder, to: builder, workdir: dockerfile.workdir })
  const [install = ''] = dockerfile.runs.map(line => /npm ci[^&]*/.exec(line)?.[0] ?? '')
  await runOk('npm', [...install.trim().split(' ').slice(1), '--prefer-offline'], {
    cwd: join(builder, dockerfile.workdir),
    env: npmSettings(),
  })
  await mkdir(join(builder, 'data'))
  await copyAll(second, { from: builder, to: image, workdir: dockerfile.workdir })

  const [uid = 0, gid = 0] = dockerfile.user.split(':').map(Number)
  await chown(join(image, 'data'), uid, gid)
  await addNode(image)
  return {
    path: image,
    command: (args, env, { user = dockerfile.user, writable = [join(image, 'data'), '/data'] } = {}) => {
      const variables = Object.entries(env).map(([name, value]) => `${name}=${value}`)
      // chroot needs the one capability that is left; it then drops the groups and the user.
      const rights = ['setpriv', '--bounding-set=-all,+sys_chroot,+setuid,+setgid', '--inh-caps=-all', '--no-new-privs']
      const change = [...rights, '/usr/sbin/chroot', `--userspec=${user}`, '--groups=', image]
      const place = [image, writable[0], join(image, writable[1])]
      return {
        command: 'unshare',
        args: ['--mount', 'sh', '-euc', mounts, 'sh', ...place, 'env', '-i', ...variables, ...change, ...args],
      }
    },
    remove: () => directory.remove(),
  }
}

/** npm's own settings, such as the registry, may be variables. Those that tell of the npm that runs the tests are not for another one. */
function npmSettings(): Record<string, string> {
  const about = /^(npm_(lifecycle|package|command|execpath|node|config_local_prefix)|INIT_CWD$|NODE_ENV$)/
  const kept = Object.entries(process.env).filter(([name]) => !about.test(name))
  return Object.fromEntries(kept.map(([name, value]) => [name, value ?? '']))
}

/** In a name space of its own, which ends with the program. */
const mounts = `
root=$1 outside=$2 inside=$3
shift 3
mount --bind "$root" "$root"
mkdir -p "$inside"
mount --bind "$outside" "$inside"
mount --rbind /proc "$root/proc"
mount -o remount,bind,ro "$root"
exec "$@"
`

async function copyAll(
  copies: readonly Copy[],
  { from, to, workdir }: { from: string; to: string; workdir: string },
): Promise<void> {
  const context = buildContext()
  for (const copy of copies)
    for (const source of copy.sources) {
      if (copy.from === undefined && !context.includes(source)) throw new Error(`${source} is not in the build context`)
      const start = copy.from === undefined ? join(repository, source) : join(from, source)
      const target = copy.to.startsWith('/') ? join(to, copy.to) : join(to, workdir, copy.to)
      // A source that is a directory stands for what is in it.
      await mkdir(dirname(target), { recursive: true })
      const end = copy.to.endsWith('/') ? join(target, source) : target
      // What an earlier stage made is used once.
      if (copy.from === undefined) await cp(start, end, { recursive: true })
      else await rename(start, end)
    }
}

/** Where distroless has it. */
async function addNode(image: string): Promise<void> {
  const node = join(image, 'nodejs/bin/node')
  await mkdir(dirname(node), { recursive: true })
  // Large: where it can, it is the same file.
  await link(process.execPath, node).catch(() => copyFile(process.execPath, node))
  const libraries = (await runOk('ldd', [process.execPath])).matchAll(/(?:=> )?(\/\S+) \(0x/g)
  for (const [, library = ''] of libraries) {
    await mkdir(join(image, dirname(library)), { recursive: true })
    await copyFile(library, join(image, library))
  }
  await mkdir(join(image, 'proc'))
}
