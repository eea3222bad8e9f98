import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { run } from '../test/real/harness/process.ts'

/**
 * On loopback the system lends every connection megabytes at both ends, and both ends are this machine: a thousand connections that stand still
 * use up all memory that TCP may have (tcp_mem), and from then on the system slows everybody down, whatever the server does.
 * A network namespace has limits of its own: half a mebibyte for each direction.
 */
const script = `
ip link set lo up || exit 97
echo "4096 16384 524288" >/proc/sys/net/ipv4/tcp_wmem || exit 97
echo "4096 131072 524288" >/proc/sys/net/ipv4/tcp_rmem || exit 97
exec "$@"
`

/** True where this user may have a namespace: root, with iproute2 and util-linux. */
export async function hasOwnNetwork(): Promise<boolean> {
  const { code } = await run('unshare', inside(['true'])).catch(() => ({ code: -1 }))
  return code === 0
}

/** Runs a command with a loopback of its own; gives what it wrote to stdout. Its progress goes to stderr. */
export async function runOnOwnNetwork(command: readonly string[]): Promise<string> {
  const child = spawn('unshare', inside(command), { stdio: ['ignore', 'pipe', 'inherit'] })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  await once(child, 'close')
  return text
}

const inside = (command: readonly string[]): readonly string[] => ['--net', 'sh', '-c', script, 'sh', ...command]
