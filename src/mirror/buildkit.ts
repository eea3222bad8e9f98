import { authorityOf, type Client, commonNotes, isHttp, type MirrorOptions } from './client.ts'

/** https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md */
export const buildkit: Client = options => ({
  files: [
    {
      path: '/etc/buildkit/buildkitd.toml (merge into what is there, then restart buildkitd)',
      text: buildkitdToml(options),
    },
  ],
  notes: [
    'With buildx: docker buildx create --use --buildkitd-config buildkitd.toml',
    options.airGapped
      ? 'Fallback: to the registry itself; BuildKit cannot switch it off. Close the way on the network.'
      : 'Fallback: each request that Layover does not answer with content goes to the registry of the image.',
    'There is no wildcard: a registry that is not listed here is pulled directly.',
    ...(options.ca === undefined || isHttp(options)
      ? []
      : ['The authority must lie where buildkitd runs, inside its container if it has one.']),
    ...commonNotes(options),
  ],
})

function buildkitdToml(options: MirrorOptions): string {
  const authority = authorityOf(options)
  const mirrors = options.upstreams.map(({ name }) => `[registry."${name}"]\n  mirrors = ["${authority}"]\n`)
  // The mirror is a registry of its own to BuildKit: it speaks https to it unless told otherwise here.
  const own = isHttp(options) ? 'http = true' : options.ca === undefined ? undefined : `ca = ["${options.ca}"]`
  return [...mirrors, ...(own === undefined ? [] : [`[registry."${authority}"]\n  ${own}\n`])].join('\n')
}
