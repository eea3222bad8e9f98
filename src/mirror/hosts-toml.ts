import type { MirrorOptions, NodeFile } from './client.ts'
import { isHttp, originOf } from './client.ts'

/**
 * The hosts.toml files under a certs.d directory: one `_default` for every registry, or one per chosen upstream.
 * https://github.com/containerd/containerd/blob/main/docs/hosts.md
 */
export function hostsTomlFiles(certsDirectory: string, options: MirrorOptions): NodeFile[] {
  const directories = options.everyUpstream ? ['_default'] : options.upstreams.map(({ name }) => name)
  const text = options.airGapped ? onlyServer(options) : mirrorFirst(options)
  return directories.map(directory => ({ path: `${certsDirectory}/${directory}/hosts.toml`, text }))
}

function mirrorFirst(options: MirrorOptions): string {
  return lines([
    `[host."${originOf(options)}"]`,
    `  capabilities = ${capabilities(options)}`,
    // Used from containerd 2.1 on, ignored before.
    '  dial_timeout = "500ms"',
    ...caLine(options, '  '),
  ])
}

function onlyServer(options: MirrorOptions): string {
  return lines([
    `server = "${originOf(options)}"`,
    `capabilities = ${capabilities(options)}`,
    ...caLine(options, ''),
    // https://github.com/containerd/containerd/issues/10027
    '# Empty, and needed: without it containerd 1.x refuses this file and pulls from the registry itself.',
    '[host]',
  ])
}

/** containerd before 2.2 rejects the whole file for a capability that it does not know, and then pulls directly, silently. */
function capabilities({ containerdVersion: version }: MirrorOptions): string {
  const knowsReferrers = version !== undefined && (version.major > 2 || (version.major === 2 && version.minor >= 2))
  return knowsReferrers ? '["pull", "resolve", "referrers"]' : '["pull", "resolve"]'
}

const caLine = (options: MirrorOptions, indent: string): string[] =>
  options.ca === undefined || isHttp(options) ? [] : [`${indent}ca = "${options.ca}"`]

const lines = (all: readonly string[]): string => `${all.join('\n')}\n`

/** What happens when Layover does not answer, for everything that reads hosts.toml. */
export function containerdFallback({ airGapped, everyUpstream }: MirrorOptions): string[] {
  return airGapped
    ? ['Fallback: none. What Layover does not have and cannot fetch fails.']
    : [
        'Fallback: each request that Layover does not answer with content goes to the registry of the image; the next request asks Layover first again.',
        ...(everyUpstream
          ? [
              '_default covers every registry: one that Layover does not know is answered 404 there and pulled directly.',
            ]
          : []),
      ]
}
