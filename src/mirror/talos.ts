import { type Client, commonNotes, isHttp, type MirrorOptions, originOf } from './client.ts'

/** Talos Linux: machine configuration as documents, and the older single-document form. */
export const talos: Client = options => ({
  files: [
    {
      path: 'layover-mirror.yaml (talosctl patch machineconfig --patch @layover-mirror.yaml)',
      text: documents(options),
    },
    { path: 'layover-mirror-older.yaml (releases that do not know RegistryMirrorConfig)', text: olderPatch(options) },
  ],
  notes: [
    options.airGapped
      ? 'Fallback: none, by skipFallback.'
      : 'Fallback: each request that Layover does not answer with content goes to the registry of the image.',
    'The installer image of Talos is pulled through the mirror as well.',
    ...(options.ca === undefined || isHttp(options)
      ? []
      : ['Talos reads no file for the authority: add its PEM text as a TrustedRootsConfig document.']),
    ...commonNotes(options),
  ],
})

const namesOf = (options: MirrorOptions): string[] =>
  options.everyUpstream ? ['*'] : options.upstreams.map(({ name }) => name)

function documents(options: MirrorOptions): string {
  return namesOf(options)
    .map(name =>
      [
        'apiVersion: v1alpha1',
        'kind: RegistryMirrorConfig',
        `name: "${name}"`,
        'endpoints:',
        `  - url: "${originOf(options)}"`,
        `skipFallback: ${options.airGapped}`,
        '',
      ].join('\n'),
    )
    .join('---\n')
}

function olderPatch(options: MirrorOptions): string {
  const mirrors = namesOf(options).map(name =>
    [
      `      "${name}":`,
      '        endpoints:',
      `          - "${originOf(options)}"`,
      `        skipFallback: ${options.airGapped}`,
      '',
    ].join('\n'),
  )
  return `machine:\n  registries:\n    mirrors:\n${mirrors.join('')}`
}
